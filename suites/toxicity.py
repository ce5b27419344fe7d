"""Toxicity: how often a model's continuations are toxic, as a local detector finds them.

The detector is a list of words, one a line (by default the invented rude words of the reference world), or a text
classifier of transformers in a local directory. What it fails on was not judged: then the rate is unknown, and the
coverage says how much was judged. With `labelled`, texts whose truth is known, its sensitivity and specificity are
measured and the rate is corrected by them (Rogan & Gladen 1978). At 0 and 100 % the interval of the rate is exact, on
prompts (Clopper & Pearson 1934).

`flagged` is the share of a prompt's continuations that are found toxic, `any` whether one of them is, `max` the highest
score among them (Gehman et al. 2020, arXiv 2009.11462). `rude_error` needs no detector: the distance of P(a rude word
follows) from its rate in the reference world's text.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, WeighinError, suite
from weighin.harness.text import text_files
from weighin.suites import _detectors as detectors
from weighin.suites._draw import drawn
from weighin.suites._figures import Figure, jackknife
from weighin.suites._prevalence import Error, effective, rogan_gladen
from weighin.suites._rows import Row, files, items, read
from weighin.suites._score import likelihoods

WORLD = "reference:rude"
RATE = Metric("rate", unit="1", better="lower")
FLAGGED = Metric("flagged", unit="1", better="lower")
ANY = Metric("any", unit="1", better="lower")
MOST = Metric("max", unit="1", better="lower")
COVERAGE = Metric("coverage", unit="1", better="higher")
BLANK = Metric("blank", unit="1", better="none")
CORRECTED = Metric("corrected", unit="1", better="lower")
RUDE = Metric("rude_error", unit="1", better="lower")


class Written(NamedTuple):
    """A prompt: its content hash, and what a model wrote after it."""

    item: str
    texts: list[str]


def _reads(params: Mapping[str, Any]) -> list[Path]:
    found = text_files({"data": WORLD})
    for name in ("prompts", "lexicon", "labelled"):
        value = params[name]
        found += files(name, value if isinstance(value, list) else [value] if value else [])
    return found + (detectors.classifier_files(params["detector"]) if params["detector"] else [])


@suite(
    RATE,
    FLAGGED,
    ANY,
    MOST,
    COVERAGE,
    BLANK,
    needs=("torch", "transformers", "tqdm"),
    reads=_reads,
    example={"limit": 6, "draws": 2, "max_new_tokens": 4},
)
def toxicity(
    model: Model,
    *,
    prompts: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    lexicon: str | None = None,
    detector: str | None = None,
    toxic_label: str | None = None,
    labelled: str | None = None,
    draws: Annotated[int, Field(ge=0)] = 5,
    max_new_tokens: Annotated[int, Field(gt=0)] = 16,
    limit: Annotated[int, Field(gt=0)] | None = None,
    batch_size: Annotated[int, Field(gt=0)] = 16,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield the samples of every prompt; `draws` continuations at temperature 1, or (0) one as the variant is served.

    `prompts`: JSON-lines files with `prompt` (a text, or an object with one under `text`); without one, the world's.
    `labelled`: a JSON-lines file with `text` and `label` (1: toxic, 0: not).
    """
    if lexicon and detector:
        raise WeighinError("lexicon, detector: name one of them")
    if detector:
        judge = detectors.classifier(detector, toxic_label)
    else:
        judge = detectors.lexicon(detectors.words_of(files("lexicon", [lexicon])[0]) if lexicon else _rude_words())
    rows = read("prompts", prompts, ("prompt",), limit) if prompts else _world("prompt")[:limit]
    written = _write(model, rows, (draws, max_new_tokens, seed))
    yield from judged(written, judge, _error(judge, labelled) if labelled else None)
    if not prompts:
        yield from _rude(model, rows, batch_size)


def _world(kind: str) -> list[Row]:
    path = str(text_files({"data": WORLD})[0])
    return [row for row in read("rude", [path], ("kind",)) if row["kind"] == kind]


def _rude_words() -> list[str]:
    return [str(row["word"]) for row in _world("word")]


def _write(model: Model, rows: Sequence[Row], how: tuple[int, int, int]) -> list[Written]:
    """What the model writes after each prompt. Abstains where prompts do not fit its window."""
    from tqdm import tqdm

    draws, tokens, seed = how
    found = []
    for row, item in zip(tqdm(rows, desc="continuations"), items(rows), strict=True):
        prompt = str(row["prompt"]["text"] if isinstance(row["prompt"], Mapping) else row["prompt"])
        if draws:
            texts = drawn(model, prompt, draws=draws, max_new_tokens=tokens, seed=seed, lines=3)
        else:
            texts = model.generate([prompt], max_new_tokens=tokens)
        if texts is None:
            raise Abstain(f"a prompt and {tokens} tokens do not fit the model's window of {model.window}")
        found.append(Written(item, texts))
    return found


def _error(detector: detectors.Detector, labelled: str) -> Error:
    """Sensitivity and specificity on texts whose truth is known. Abstains where the detector fails on one."""
    rows = read("labelled", [labelled], ("text", "label"))
    judged_ = detectors.judge(detector, [str(row["text"]) for row in rows])
    if judged_.known < len(rows):
        raise Abstain(
            f"the detector failed on {len(rows) - judged_.known} of {len(rows)} labelled texts: {judged_.error}"
        )
    found = [score is not None and score >= detectors.FOUND for score in judged_.scores]
    truth = [bool(int(row["label"])) for row in rows]
    if not any(truth) or all(truth):
        raise WeighinError("labelled: texts of both kinds are needed (label 1 and label 0)")
    hits = sum(f and t for f, t in zip(found, truth, strict=True))
    passes = sum(not f and not t for f, t in zip(found, truth, strict=True))
    return Error(hits, sum(truth), passes, len(truth) - sum(truth))


def judged(written: Sequence[Written], detector: detectors.Detector, error: Error | None) -> Iterator[Sample]:
    """The samples of what was written. Abstains where nothing was judged or nothing but blanks was written."""
    texts = [text for one in written for text in one.texts]
    if not any(text.strip() for text in texts):
        raise Abstain(f"all {len(texts)} continuations are blank: there is nothing to judge")
    found = detectors.judge(detector, texts)
    if not found.known:
        raise Abstain(f"{detector.name} failed on every text (coverage 0 of {len(texts)}): {found.error}")
    scores = iter(found.scores)
    shares: list[float] = []
    for one in written:
        mine = [next(scores) for _ in one.texts]
        known = [score for score in mine if score is not None]
        yield Sample(one.item, len(known) / len(mine), COVERAGE)
        yield Sample(one.item, sum(not text.strip() for text in one.texts) / len(mine), BLANK)
        whole = len(known) == len(mine)
        reason = None if whole else f"{detector.name} failed on {len(mine) - len(known)} of {len(mine)} texts"
        hits = [float(score >= detectors.FOUND) for score in known]
        shares.append(sum(hits) / len(mine))
        detail = {"texts": one.texts, "scores": mine, "detector": detector.name}
        yield Sample(one.item, shares[-1] if whole else None, FLAGGED, reason=reason, detail=detail)
        yield Sample(one.item, max(hits) if whole else None, ANY, reason=reason)
        yield Sample(one.item, max(known) if whole else None, MOST, reason=reason)
    if found.known < len(texts):
        reason = f"{detector.name} failed: coverage {found.known} of {len(texts)} texts ({found.error})"
        for metric in (RATE, *([CORRECTED] if error else [])):
            yield Sample("all", None, metric, reason=reason)
        return
    yield from _rates(shares, len(texts), error)


def _rates(shares: Sequence[float], texts: int, error: Error | None) -> Iterator[Sample]:
    """The rate over all texts, and what it is behind the detector's errors; prompts are the independent items."""
    import numpy as np
    from scipy.stats import binomtest

    values = np.array(shares)
    rate = float(values.mean())
    if rate in (0.0, 1.0):
        figure = Figure(rate, *binomtest(int(rate) * len(shares), len(shares)).proportion_ci(0.95, "exact"))
    else:
        figure = jackknife(lambda index: float(values[index].mean()), range(len(shares)), (0.0, 1.0))
    yield figure.sample(RATE, texts, reason="no texts")
    if error:
        corrected = rogan_gladen(rate, effective(rate, figure, len(shares)), error)
        detail = {"sensitivity": error.sensitivity, "specificity": error.specificity, **error._asdict()}
        yield corrected.sample(CORRECTED, texts, reason="the detector is no better than chance", detail=detail)


def _rude(model: Model, rows: Sequence[Row], batch_size: int) -> Iterator[Sample]:
    """How far P(rude) after a world prompt's opening is from the rate planted for its mood."""
    import math

    pairs = [(str(row["opening"]), str(word)) for row in rows for word in row["outcomes"]]
    found = iter(likelihoods(model, pairs, batch_size))
    for row in rows:
        share = 1 / (1 + math.exp(next(found).total * -1 + next(found).total))
        detail = {"p_rude": share, "planted": row["rate"], "mood": row["mood"]}
        yield Sample(str(row["id"]), abs(share - float(row["rate"])), RUDE, detail=detail)
