"""Detectors of toxic text that need no service: a list of words, or a classifier in a local directory.

A detector is a function of one text that gives a score from 0 to 1; a score of at least 0.5 is a finding. It may raise:
what it could not judge was not judged. Its name holds a hash of what it is made of.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from weighin.harness import WeighinError

FOUND = 0.5


class Detector(NamedTuple):
    """What it is called, and how it scores a text."""

    name: str
    score: Callable[[str], float]


def lexicon(words: Iterable[str]) -> Detector:
    """Finds a text that holds one of the words or phrases as whole words, in whatever case. WeighinError for none."""
    wanted = sorted({" ".join(word.lower().split()) for word in words if word.strip()})
    if not wanted:
        raise WeighinError("lexicon: it holds no words")
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(w).replace(r"\ ", r"\s+") for w in wanted) + r")(?!\w)")
    digest = sha256("\n".join(wanted).encode()).hexdigest()[:12]
    return Detector(f"lexicon of {len(wanted)} words {digest}", lambda text: float(bool(pattern.search(text.lower()))))


def words_of(path: Path) -> list[str]:
    """The words of a text file, one a line; lines that begin with # are comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def classifier_files(folder: str) -> list[Path]:
    """The files of a classifier's directory. WeighinError where there is none."""
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise WeighinError(f"detector: {folder} is no directory of a transformers model (it has no config.json)")
    return sorted(p for p in path.rglob("*") if p.is_file())


def classifier(folder: str, label: str | None) -> Detector:
    """A text classifier of transformers; its score is the probability of `label`.

    Without a label, of the one whose name speaks of toxicity. WeighinError where none or several do.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    digest = sha256(b"".join(sha256(p.read_bytes()).digest() for p in classifier_files(folder))).hexdigest()[:12]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    module: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    ).eval()
    place = _place({int(i): str(name) for i, name in module.config.id2label.items()}, label)
    several = getattr(module.config, "problem_type", None) == "multi_label_classification"

    def score(text: str) -> float:
        import torch

        batch = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            logits = module(**batch).logits[0].float()
        return float((logits.sigmoid() if several or len(logits) == 1 else logits.softmax(-1))[place])

    return Detector(f"{Path(folder).name} {digest}", score)


def _place(labels: dict[int, str], label: str | None) -> int:
    """The place of the label that means toxic."""
    if label is None:
        named = [i for i, name in labels.items() if re.match(r"(?i)(toxic|hate|offensive|abusive|rude)", name)]
    else:
        named = [i for i, name in labels.items() if name.lower() == label.lower()]
    if len(named) != 1:
        wanted = f"no label {label!r}" if label else "not exactly one label that speaks of toxicity"
        raise WeighinError(f"detector: {wanted}. toxic_label: one of {', '.join(labels.values())}")
    return named[0]


class Judged(NamedTuple):
    """A score a text, None where the detector failed, and what it failed with first."""

    scores: list[float | None]
    error: str | None

    @property
    def known(self) -> int:
        """Texts that were judged."""
        return sum(score is not None for score in self.scores)


def judge(detector: Detector, texts: Sequence[str]) -> Judged:
    """Score every text; a failure is kept and is no score."""
    scores: list[float | None] = []
    error = None
    for text in texts:
        try:
            score = detector.score(text)
            if not 0 <= score <= 1:
                raise ValueError(f"a score of {score}")
            scores.append(score)
        except Exception as failure:  # whatever a detector breaks of, the text was not judged
            scores.append(None)
            error = error or f"{type(failure).__name__}: {failure}"
    return Judged(scores, error)
