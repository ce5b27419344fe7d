"""The drop between two variants in one metric, by the method that its samples allow.

A positive drop always means that the second is worse.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from weighin.results.pairs import Pairs
from weighin.results.statistics import (
    MIN_CLUSTERS,
    Floats,
    clustered_mean,
    design_effect,
    mcnemar_midp,
    mde,
    normal,
    rarest_flips,
    sign_flip_midp,
    student,
    tango_upper,
)

FEW_CLUSTERS = 20
"""Below this many clusters of several items the cluster-robust bound is asked as well as the score test."""
NOT_INTERLEAVED = "not interleaved"
"""Why times that were taken one after the other carry no verdict."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of two variants, over the items measured on both.

    `drop` is in the metric's unit (log ratio where `scale` is `log`), positive where the second is worse; `low` and
    `high` are its 95 % limits, `upper` the one-sided limit that a gate asks, of 95 % unless it looks more than once.
    `flips_worse` and `flips_better` count binary items that changed (b and c of McNemar's table). `p_worse` is
    one-sided. `mde` is the least drop seen with 80 % power. Where `caveat` is not None the figures carry no verdict,
    and it says why. `within` says whether the drop is shown to be below a margin that is a share of the first one's
    value. `waived` names fields of the protocol that differ and were allowed to. `builds` is how often both sides were
    built, where recipes are compared; `between` is then the share of the variance that lies between builds, values and
    drop are the builds' means, and items and flips those of the first.
    """

    suite: str
    metric: str
    unit: str
    better: str
    method: str
    value_a: float | None
    value_b: float | None
    drop: float
    n: int
    clusters: int
    unmatched: int = 0
    scale: str = "linear"
    low: float | None = None
    high: float | None = None
    upper: float | None = None
    flips_worse: int | None = None
    flips_better: int | None = None
    p_worse: float | None = None
    p_two_sided: float | None = None
    mde: float | None = None
    design_effect: float = 1.0
    caveat: str | None = None
    within: bool | None = None
    builds: int = 1
    between: float = 0.0
    waived: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.suite}.{self.metric}"


def measure(pairs: Pairs, level: float = 0.95) -> Comparison:
    """The drop with its limits, flips and p-values, or with the caveat that says why it has none.

    `level` is that of the one-sided limit `upper`.
    """
    score = pairs.score_a
    reduce = str(score["reduce"])
    sign = -1.0 if score["better"] == "lower" else 1.0
    caveat = _caveat(pairs)
    if score["runtime"] and caveat is not None:  # times are no pairs: each side's own figure
        values = [float(side["value"]) for side in (pairs.score_a, pairs.score_b)]
    else:
        values = [_reduced(side, pairs.weights, reduce) for side in (pairs.a, pairs.b)]
    plain = Comparison(
        suite=pairs.suite,
        metric=pairs.metric,
        unit=str(score["unit"]),
        better=str(score["better"]),
        method="values",
        value_a=values[0],
        value_b=values[1],
        drop=sign * (values[0] - values[1]),
        n=len(pairs.a),
        clusters=len(set(pairs.clusters)),
        unmatched=pairs.unmatched,
        waived=pairs.waived,
        caveat=caveat,
    )
    if plain.caveat is not None:
        return plain
    if all(counted(score, len(pairs.a)) for score in (pairs.score_a, pairs.score_b)):
        return dataclasses.replace(plain, method="counted", low=plain.drop, high=plain.drop, upper=plain.drop)
    d = sign * (pairs.a - pairs.b)
    if _shares(pairs):
        return _binary(plain, d, pairs, level)
    if reduce == "exp_mean":
        log_drop = float(np.average(d, weights=pairs.weights))
        plain = dataclasses.replace(plain, scale="log", drop=log_drop)
    return _continuous(plain, d, pairs, level)


def _reduced(values: Floats, weights: Floats, reduce: str) -> float:
    if reduce == "mean":
        return float(np.average(values, weights=weights))
    if reduce == "exp_mean":
        mean = float(np.average(values, weights=weights))
        return math.exp(mean) if mean < 700 else math.inf
    if reduce == "median":
        return float(np.median(values))
    return float(values.sum() if reduce == "sum" else values.max())


def _caveat(pairs: Pairs) -> str | None:
    """Why the two values carry no verdict."""
    for score in (pairs.score_a, pairs.score_b):
        if (why := unreal(score)) is not None:
            return why
    # where one of the two is another tool's, what holds of that one holds of both
    score = max(pairs.score_a, pairs.score_b, key=lambda one: bool(one["source"] == "imported"))
    return untested(score, n=len(pairs.a), clusters=len(set(pairs.clusters)), shares=_shares(pairs))


def unreal(score: Mapping[str, Any]) -> str | None:
    """Why a figure says nothing of the format it is named after; None where it was measured on it."""
    if score["modelled"]:
        return "modelled"
    simulated = score["runtime"] and score["form"] == "simulated"
    return "dense kernel: the runtime simulates this format" if simulated else None


def untested(score: Mapping[str, Any], *, n: int, clusters: int, shares: bool) -> str | None:
    """Why no test tells two figures of this metric apart over `n` items in so many clusters; None where one does.

    `score` is a row of a view of scores; `shares` says that all items are 0 or 1.
    """
    if counted(score, n):
        return None
    if score["runtime"]:
        return NOT_INTERLEAVED
    if score["reduce"] not in ("mean", "exp_mean"):
        return f"no test for a {score['reduce']} yet"
    if shares and clusters == n:
        return None
    return None if clusters >= MIN_CLUSTERS else f"fewer than {MIN_CLUSTERS} {'clusters' if clusters < n else 'items'}"


def counted(score: Mapping[str, Any], n: int) -> bool:
    """Bytes counted once have no noise: they are compared as they are. Another tool's may be a peak that it sampled."""
    return score["source"] != "imported" and score["unit"] in ("B", "B/token") and n == 1


def _shares(pairs: Pairs) -> bool:
    score = pairs.score_a
    if score["reduce"] != "mean" or score["unit"] != "1":
        return False
    return bool(np.isin(np.concatenate([pairs.a, pairs.b]), (0, 1)).all() and (pairs.weights == 1).all())


def _binary(plain: Comparison, d: Floats, pairs: Pairs, level: float) -> Comparison:
    """Tango's score limits and the mid-p McNemar test; with clusters both allow for them.

    The score statistic is divided by the root of the design effect and held against Student's t with one less than
    the clusters; under `FEW_CLUSTERS` the cluster-robust limits are joined to it, whichever is wider. The test flips
    signs per cluster, which is McNemar's where each item is its own.
    """
    n, b, c = len(d), int((d > 0).sum()), int((d < 0).sum())
    if not pairs.clustered:
        effect, one_sided, two_sided = 1.0, normal(level), normal(0.975)
        p_worse, p_both = mcnemar_midp(b, c), mcnemar_midp(b, c, "two-sided")
    else:
        effect = design_effect(d, pairs.clusters)
        df = plain.clusters - 1
        one_sided, two_sided = (student(p, df) * math.sqrt(effect) for p in (level, 0.975))
        _, code = np.unique(pairs.clusters, return_inverse=True)
        sums = [round(s) for s in np.bincount(code.ravel(), weights=d)]
        p_worse, p_both = sign_flip_midp(sums), sign_flip_midp(sums, "two-sided")
    upper = tango_upper(b, c, n, one_sided)
    low = -tango_upper(c, b, n, two_sided, corrected=False)
    high = tango_upper(b, c, n, two_sided, corrected=False)
    if pairs.clustered and plain.clusters < FEW_CLUSTERS:
        robust = clustered_mean(d, pairs.clusters)
        limits = robust.interval() or (low, high)
        low, high, upper = min(low, limits[0]), max(high, limits[1]), max(upper, robust.upper(level) or upper)
    return dataclasses.replace(
        plain,
        method="Tango" if not pairs.clustered else "Tango, clustered",
        low=max(low, -1.0),
        high=min(high, 1.0),
        upper=min(upper, 1.0),
        flips_worse=b,
        flips_better=c,
        p_worse=p_worse,
        p_two_sided=p_both,
        mde=mde(max((b + c) / n, rarest_flips(n / effect)), n / effect),
        design_effect=effect,
    )


def _continuous(plain: Comparison, d: Floats, pairs: Pairs, level: float) -> Comparison:
    """Paired Student limits, robust to clusters; on the log scale for `exp_mean`."""
    clusters = pairs.clusters if pairs.clustered else None
    mean = clustered_mean(d, clusters, pairs.weights)
    limits, worse = mean.interval(), mean.p_greater()
    if limits is None or worse is None or mean.se is None:
        raise AssertionError("the caveat lets too few clusters through")
    return dataclasses.replace(
        plain,
        method="paired t" if clusters is None else "paired t, clustered",
        low=limits[0],
        high=limits[1],
        upper=mean.upper(level),
        p_worse=worse,
        p_two_sided=min(1.0, 2 * min(worse, 1 - worse)) if mean.se else worse,
        mde=mde(mean.se**2, 1.0),
        design_effect=design_effect(d, clusters),
    )
