"""Questions with passages that answer them, from the reference world or from SQuAD-like files, and a retriever."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weighin.harness import WeighinError
from weighin.harness.text import WORLD
from weighin.suites._rows import Row, item, read

OURS = "reference:passages"


class Question(NamedTuple):
    """A question, what may be said in answer, the place in the corpus of the passage that tells, and a content hash."""

    item: str
    text: str
    answers: tuple[str, ...]
    source: int


class Corpus(NamedTuple):
    """All passages among which is searched, and the questions."""

    passages: list[str]
    questions: list[Question]


def files(params: dict[str, Any]) -> list[Path]:
    """The files behind `data` and `corpus`."""
    named = [name for name in (params["data"], params["corpus"]) if name and name != OURS]
    return [Path(name).expanduser().resolve() for name in named] or [WORLD / "passages.jsonl"]


def load(data: str, corpus: str | None) -> Corpus:
    """Questions and passages. Raises WeighinError for rows that lack what is needed.

    A row holds `question`, and `answer` or `answers` (texts, or SQuAD's objects with a `text`), and either its own
    passage (`passage`, `context` or `text`, and more to search among in `distractors`) or a `doc_id` of the file
    `corpus`, whose rows hold `doc_id` and `text`.
    """
    rows = read("data", [str(WORLD / "passages.jsonl") if data == OURS else data], ["question"])
    passages: dict[str, int] = {}
    by_id: dict[str, int] = {}
    for row in read("corpus", [corpus], ["doc_id", "text"]) if corpus else ():
        by_id[str(row["doc_id"])] = passages.setdefault(str(row["text"]), len(passages))
    questions = []
    for row in rows:
        source = _source(row, passages, by_id, data)
        for other in row.get("distractors") or ():
            passages.setdefault(str(other), len(passages))
        questions.append(Question(item(row), str(row["question"]), _answers(row, data), source))
    return Corpus(list(passages), questions)


def _source(row: Row, passages: dict[str, int], by_id: dict[str, int], data: str) -> int:
    own = next((str(row[name]) for name in ("passage", "context", "text") if row.get(name)), None)
    if own is not None:
        return passages.setdefault(own, len(passages))
    if str(row.get("doc_id")) in by_id:
        return by_id[str(row["doc_id"])]
    said = json.dumps(row)[:80]
    raise WeighinError(f"data: {data}: {said}... has no passage, context or text, nor a doc_id of `corpus`")


def _answers(row: Row, data: str) -> tuple[str, ...]:
    given = row.get("answers", row.get("answer"))
    if isinstance(given, dict):
        given = given.get("text")
    several = given if isinstance(given, list) else [given]
    texts = tuple(str(each["text"] if isinstance(each, dict) else each) for each in several if each is not None)
    if not texts:
        raise WeighinError(f"data: {data}: the question {str(row['question'])[:60]!r} has neither answer nor answers")
    return texts


def by_words(passages: Sequence[str], questions: Sequence[str], count: int) -> list[list[int]]:
    """For each question the places of the `count` passages nearest by the cosine of TF-IDF words, nearest first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True)
    table = words.fit_transform(passages)
    return _nearest(words.transform(questions) @ table.T, count)


def by_vectors(passages: Any, questions: Any, count: int) -> list[list[int]]:
    """The same by the cosine of vectors, (passage, width) and (question, width)."""
    import numpy as np

    left = questions / np.linalg.norm(questions, axis=1, keepdims=True)
    right = passages / np.linalg.norm(passages, axis=1, keepdims=True)
    return _nearest(left @ right.T, count)


def _nearest(similarity: Any, count: int) -> list[list[int]]:
    import numpy as np

    rows = similarity.toarray() if hasattr(similarity, "toarray") else similarity
    return [list(map(int, np.argsort(-row, kind="stable")[:count])) for row in rows]
