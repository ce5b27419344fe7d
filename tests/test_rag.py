"""Retrieval and answers: formats that are read, what is refused, metrics by hand, real models."""

import json
from pathlib import Path
from typing import Any

import pytest

from weighin.harness import Abstain, Checkpoint, WeighinError
from weighin.harness.model import TransformersModel
from weighin.suites import _corpus
from weighin.suites._judge import Judge, _cause, judged
from weighin.suites._ragas import Answered, scored, semantic
from weighin.suites.rag import rag

pytestmark = pytest.mark.usefixtures("one_thread")


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def test_squad_like_rows_with_a_corpus_of_their_own(tmp_path: Path) -> None:
    data = lines(tmp_path / "q", {"question": "Who?", "doc_id": 1, "answers": [{"text": "Ana"}, {"text": "Ana K."}]})
    corpus = lines(tmp_path / "c", {"doc_id": 0, "text": "Of Bo."}, {"doc_id": 1, "text": "Of Ana."})
    found = _corpus.load(data, corpus)
    assert found.passages == ["Of Bo.", "Of Ana."]
    assert (found.questions[0].answers, found.questions[0].source) == (("Ana", "Ana K."), 1)


def test_rows_with_passages_of_their_own(tmp_path: Path) -> None:
    data = lines(
        tmp_path / "q",
        {"question": "Who?", "context": "Of Ana.", "answers": {"text": ["Ana"], "answer_start": [3]}},
        {"question": "Whose?", "context": "Of Ana.", "answer": "Ana", "distractors": ["Of Bo."]},
    )
    found = _corpus.load(data, None)
    assert found.passages == ["Of Ana.", "Of Bo."] and [q.source for q in found.questions] == [0, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?", "answer": "Ana"}, "has no passage, context or text, nor a doc_id of `corpus`"),
        ({"question": "Who?", "passage": "Of Ana."}, "'Who\\?' has neither answer nor answers"),
        ({"passage": "Of Ana."}, "has no question"),
    ],
)
def test_rows_that_lack_something_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(WeighinError, match=message):
        _corpus.load(lines(tmp_path / "q", row), None)


def test_words_and_vectors_find_the_nearest() -> None:
    import numpy as np

    assert _corpus.by_words(["red boat", "blue mill", "red mill"], ["the blue mill?"], 2) == [[1, 2]]
    assert _corpus.by_vectors(np.eye(3), np.array([[0.0, 2.0, 1.0]]), 2) == [[1, 2]]


def test_the_best_reference_counts() -> None:
    one = Answered("Who?", "Ana", ("Bo", "Ana"), ["Of Ana."], ["Of Ana."])
    other = Answered("Who?", "", ("Ana",), ["Of Bo, who lives far away."], ["Of Ana."])
    found = scored([one, other])
    assert found["exact_match"] == [1.0, 0.0] and found["string_similarity"][0] == 1.0
    assert found["context_recall"] == [1.0, 0.0]


def test_an_encoder_tells_how_near_answers_are(pico_dir: Path) -> None:
    same = Answered("?", "The heron sleeps.", ("The heron sleeps.",), [], [])
    other = Answered("?", "0 1 2 3", ("The heron sleeps.",), [], [])
    near, far = semantic([same, other], str(pico_dir))
    assert near == pytest.approx(1.0, abs=1e-5) and far < near
    with pytest.raises(WeighinError, match="embeddings: nowhere"):
        semantic([same], "nowhere")


@pytest.mark.parametrize("retriever", ["words", "model"])
def test_a_real_model_reads_and_answers(pico_dir: Path, retriever: Any) -> None:
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    samples = list(rag(model, limit=2, new_tokens=4, retriever=retriever))
    names = {s.metric.name for s in samples if s.metric}
    assert names == {
        "hit", "context_precision", "context_recall", "exact_match", "bleu", "rouge_l", "string_similarity",
    }  # fmt: skip
    assert all(s.value is not None and 0 <= s.value <= 1 and s.cluster for s in samples)
    with pytest.raises(Abstain, match="do not fit the window of 256"):
        list(rag(model, limit=1, top_k=12))


def test_real_questions_on_real_passages(pico_dir: Path, shared_data: Path) -> None:
    found = _corpus.load(
        str(shared_data / "evalsets" / "squad_xquad_en.jsonl"), str(shared_data / "rag" / "xquad_en_docs.jsonl")
    )
    near = _corpus.by_words(found.passages, [q.text for q in found.questions], 5)
    hits = sum(q.source in places for q, places in zip(found.questions, near, strict=True)) / len(near)
    assert len(found.passages) == 240 and hits > 0.8


def test_a_named_judge_is_asked_and_its_faults_are_reasons(pico_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weighin.suites._planted_rag import rules

    monkeypatch.setenv("WEIGHIN_JUDGE_KEY", "s3cret")
    told = Answered("Who?", "Ana", ("Ana",), ["Of Ana."], [])
    other = Answered("Who?", "Bo", ("Ana",), ["Of Ana."], [])
    silent = Answered("Who?", "", ("Ana",), ["Of Ana."], [])
    with rules() as url:
        found = judged([told, other, silent], Judge(url, "rules"), str(pico_dir))
        refused = judged([told], Judge(url, "broken"), None)
    assert [one.value for one in found["faithfulness"]] == [1.0, 0.0, None]
    assert found["faithfulness"][2].reason == "there is no answer to judge"
    assert found["answer_relevancy"][0].value is None  # this judge asks no questions, which is no 0
    (reason,) = [one.reason for one in refused["faithfulness"]]
    assert reason == "the judge failed: HTTP 400"
    gone = judged([told], Judge(url, "rules"), None)["faithfulness"][0]
    assert gone.value is None and gone.reason and "the judge failed" in gone.reason
    assert _cause(ValueError("Bearer s3cret is wrong")) == "Bearer … is wrong"
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    with pytest.raises(WeighinError, match="judge and judge_model go together"):
        list(rag(model, limit=1, judge="http://127.0.0.1/v1"))
