"""An exam asked in its own words and in others: how much better a model is where it may have read the words.

A row has a `question`, the same question `rephrased`, `choices` and `gold`, the place of the right one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weighin.harness import Abstain, Checkpoint, Model, WeighinError
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.harness.text import rows
from weighin.suites._membership import Floats
from weighin.suites._token_scores import score

FORM: Mapping[str, tuple[type, ...]] = {"question": (str,), "rephrased": (str,), "choices": (tuple,), "gold": (int,)}


def load_exam(data: str, samples: int | None, seed: int) -> list[Mapping[str, Any]]:
    """The rows of an exam; WeighinError where one has not what it takes."""
    return [example.row for example in rows(data, samples=samples, seed=seed, forms=[FORM])]


def reference_folder(name: str) -> Path:
    """The directory of `reference:NAME` or of a path; WeighinError where there is none."""
    kind, colon, rest = name.partition(":")
    path = reference_path(rest) if colon and kind == "reference" else Path(name).expanduser()
    if not path.is_dir():
        raise WeighinError(f"references: no directory {name}. Allowed: reference:NAME or a directory of a model")
    return path


def load_reference(name: str, beside: Model) -> Model:
    """A clean model, as it was saved, scored in the way that the one `beside` it is."""
    loading = Loading(scorer=beside.loading.scorer) if isinstance(beside, TransformersModel) else Loading()
    return TransformersModel(Checkpoint(reference_folder(name), name), {}, loading)


def right(model: Model, exam: Sequence[Mapping[str, Any]], wording: str, prompt: str, batch_size: int) -> Floats:
    """Of each question asked in this wording (`question` or `rephrased`), 1 where the right choice is the likeliest.

    A choice is as likely as its tokens after the prompt, added up.
    """
    texts = [(prompt.format(question=row[wording]), choice) for row in exam for choice in row["choices"]]
    whole = [model.encode(f"{asked} {choice}") for asked, choice in texts]
    if max(map(len, whole)) > model.window:
        raise Abstain(f"exam: a question is longer than the model's window of {model.window} tokens")
    starts = [_common(model.encode(asked), ids) for (asked, _), ids in zip(texts, whole, strict=True)]
    found = [
        float(tokens.t[max(start - 1, 0) :].sum())
        for start, tokens in zip(starts, score(model, whole, batch_size), strict=True)
    ]
    answers, place = [], 0
    for row in exam:
        likely = found[place : place + len(row["choices"])]
        place += len(likely)
        answers.append(float(max(range(len(likely)), key=likely.__getitem__) == row["gold"]))
    return np.array(answers, np.float64)


def lead(model: Model, exam: Sequence[Mapping[str, Any]], prompt: str, batch_size: int) -> float:
    """g: share of right answers in the exam's own words less that in others."""
    own, other = (right(model, exam, wording, prompt, batch_size) for wording in ("question", "rephrased"))
    return float((own - other).mean())


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
