"""Bias: leanings of a model by the published formulae, from the likelihood of sentences and answers.

By default the pronouns of the reference world: P(she) after a profession against the rate at which the training text
held it. Real sets are files in their published JSON-lines formats: BBQ, CrowS-Pairs, StereoSet, WinoBias, Winogender.
A score that leans to one side is signed; 0 is balance, and every sample keeps its direction.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.text import text_files
from weighin.suites import _bbq, _coreference, _sentence_pairs
from weighin.suites._figures import jackknife
from weighin.suites._rows import files, read
from weighin.suites._score import Normalise, likelihoods

SETS = ("bbq", "crows_pairs", "stereoset", "winobias", "winogender")
PRONOUNS = "reference:pronouns"
COLUMNS = ("id", "prompts", "outcomes", "she_rate")
ERROR = Metric("pronouns/error", unit="1", better="lower")
SHIFT = Metric("pronouns/shift", unit="1", better="none", signed=True)
SPEARMAN = Metric("pronouns/spearman", unit="1", better="higher")


def _reads(params: Mapping[str, Any]) -> list[Path]:
    own = text_files({"data": PRONOUNS}) if params["pronouns"] else []
    return own + [path for name in SETS for path in files(name, params[name])]


@suite(ERROR, SHIFT, SPEARMAN, needs=("torch", "tqdm"), reads=_reads, example={"limit": 6})
def bias(
    model: Model,
    *,
    pronouns: bool = True,
    bbq: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    crows_pairs: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    stereoset: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    winobias: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    winogender: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    normalise: Normalise = "bytes",
    limit: Annotated[int, Field(gt=0)] | None = None,
    batch_size: Annotated[int, Field(gt=0)] = 16,
) -> Iterator[Sample]:
    """Yield the samples of each set that was named; `limit` is a number of rows a file."""
    if not (pronouns or bbq or crows_pairs or stereoset or winobias or winogender):
        raise Abstain("no set was named and the pronouns are left out: nothing to measure")
    if pronouns:
        yield from pronoun_rates(model, limit=limit, batch_size=batch_size)
    if bbq:
        yield from _bbq.measure(model, bbq, limit=limit, normalise=normalise, batch_size=batch_size)
    if crows_pairs:
        yield from _sentence_pairs.crows_pairs(model, crows_pairs, limit=limit, batch_size=batch_size)
    if stereoset:
        yield from _sentence_pairs.stereoset(model, stereoset, limit=limit, batch_size=batch_size)
    if winobias:
        yield from _coreference.winobias(model, winobias, limit=limit, normalise=normalise, batch_size=batch_size)
    if winogender:
        yield from _coreference.winogender(model, winogender, limit=limit, normalise=normalise, batch_size=batch_size)


def pronoun_rates(model: Model, *, limit: int | None, batch_size: int) -> Iterator[Sample]:
    """P(she) / (P(she) + P(he)), averaged over a profession's prompts, beside its planted rate: one item a profession.

    `error` is the distance from the rate, `shift` the signed difference, `spearman` the rank correlation over
    professions. A model that never read the reference world is measured all the same: it knows none of the rates.
    """
    import math

    import numpy as np
    from scipy import stats

    table = read("pronouns", [str(path) for path in text_files({"data": PRONOUNS})], COLUMNS, limit)
    pairs = [(prompt, word) for row in table for prompt in row["prompts"] for word in row["outcomes"]]
    found = iter(likelihoods(model, pairs, batch_size))
    said, planted = [], []
    for row in table:
        odds = [next(found).total - next(found).total for _ in row["prompts"]]
        each = [1 / (1 + math.exp(-value)) for value in odds]
        rate, share = float(row["she_rate"]), sum(each) / len(each)
        said.append(share)
        planted.append(rate)
        yield Sample(row["id"], abs(share - rate), ERROR, detail={"p_she": share, "planted": rate, "prompts": each})
        yield Sample(row["id"], share - rate, SHIFT)
    shares, rates = np.array(said), np.array(planted)

    def spearman(index: Any) -> float:
        flat = np.ptp(shares[index]) == 0 or np.ptp(rates[index]) == 0 if len(index) > 2 else True
        return float("nan") if flat else float(stats.spearmanr(shares[index], rates[index]).statistic)

    figure = jackknife(spearman, [row["id"] for row in table], (-1.0, 1.0))
    yield figure.sample(SPEARMAN, len(table), reason="it finds no profession likelier than another, or there are < 3")
