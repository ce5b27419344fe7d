"""Membership and contamination in numbers alone: scores of a text, how well they tell two sets apart, and two tests.

Arrays are float64. A higher score speaks for membership: the model has read the text.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FPR = 0.01
"""The false-positive rate at which the true-positive rate is told (Carlini et al., arXiv 2112.03570, section III)."""


class Estimate(NamedTuple):
    """A figure with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


class Scores(NamedTuple):
    """A text's scores: mean log-probability, that by its compressed length, and the means of the least likely share."""

    loss: float
    zlib: float
    mink: float
    minkpp: float


def scores(text: str, t: Floats, z: Floats, k: float) -> Scores:
    """Scores of a text from its tokens' log-probabilities `t`, nats, and from `z`, the same standardised.

    loss: mean(t), the negative loss (Yeom et al., arXiv 1709.01604). zlib: Σt by the bytes of the zlib-compressed text
    (Carlini et al., arXiv 2012.07805). Min-K%: mean of the share `k` of lowest t (Shi et al., arXiv 2310.16789).
    Min-K%++: the same of z (Zhang et al., arXiv 2404.02936).
    """
    squeezed = len(zlib.compress(text.encode("utf-8")))
    return Scores(float(t.mean()), float(t.sum()) / squeezed, lowest(t, k), lowest(z, k))


def lowest(values: Floats, share: float) -> float:
    """Mean of the lowest `share` of some values, at least one."""
    count = max(1, int(len(values) * share))
    return float(np.partition(values, count - 1)[:count].mean())


def auroc(members: Any, nonmembers: Any) -> float:
    """P(member scores higher than non-member), a tie counting half: Mann-Whitney's U by the number of pairs."""
    return float(_placements(members, nonmembers)[0].mean())


def delong(members: Any, nonmembers: Any, level: float = 0.95, inflation: float = 1.0) -> Estimate:
    """AUROC with the interval of DeLong, DeLong & Clarke-Pearson (1988, Biometrics 44:837) on the logit scale.

    Where the sets are told apart without an error there is no variance to estimate: the limit is then that of as many
    independent pairs, all in order, as the smaller set has items (Clopper-Pearson). `inflation` multiplies the variance
    where items are not independent. ValueError below two items a set.
    """
    from scipy import special

    if min(len(members), len(nonmembers)) < 2:
        raise ValueError(f"need two items in each set, got {len(members)} and {len(nonmembers)}")
    above, below = _placements(members, nonmembers)
    value = float(above.mean())
    variance = float(above.var(ddof=1)) / len(above) + float(below.var(ddof=1)) / len(below)
    if value in (0.0, 1.0):
        limit = ((1 - level) / 2) ** (inflation / min(len(above), len(below)))
        return Estimate(value, limit, 1.0) if value else Estimate(value, 0.0, 1 - limit)
    half = float(special.ndtri(0.5 + level / 2)) * math.sqrt(inflation * variance) / (value * (1 - value))
    centre = float(special.logit(value))
    return Estimate(value, float(special.expit(centre - half)), float(special.expit(centre + half)))


def _placements(members: Any, nonmembers: Any) -> tuple[Floats, Floats]:
    """Of each member the share of non-members below it, of each non-member the share of members above it."""
    from scipy.stats import rankdata

    ours, theirs = np.asarray(members, np.float64), np.asarray(nonmembers, np.float64)
    ranks = rankdata(np.concatenate([ours, theirs]))
    m, n = len(ours), len(theirs)
    return (ranks[:m] - rankdata(ours)) / n, 1 - (ranks[m:] - rankdata(theirs)) / m


def tpr(members: Any, nonmembers: Any) -> float:
    """Share of members above the lowest threshold that at most the share `FPR` of non-members exceeds."""
    theirs = np.sort(np.asarray(nonmembers, np.float64))[::-1]
    return float((np.asarray(members, np.float64) > theirs[int(FPR * len(theirs))]).mean())


def bootstrap(
    statistic: Callable[[Floats, Floats], float], members: Any, nonmembers: Any, draws: int = 500, seed: int = 0
) -> Estimate:
    """A figure of two sets with its percentile interval, each set drawn again by itself (Efron 1979)."""
    source = np.random.default_rng(seed)
    ours, theirs = np.asarray(members, np.float64), np.asarray(nonmembers, np.float64)
    found = [
        statistic(source.choice(ours, len(ours)), source.choice(theirs, len(theirs))) for _ in range(draws)
    ]  # fmt: skip
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(statistic(ours, theirs), float(low), float(high))


class Tested(NamedTuple):
    """A statistic and its one-sided p."""

    t: float
    p: float


def order_test(canonical: Any, permuted: Any) -> Tested:
    """Whether the order in which items stand in their file is likelier than others (Oren et al., arXiv 2310.17623).

    `canonical` (m) is the log-probability of each shard of consecutive items in that order, `permuted` (m, P) in P
    random ones. d = canonical − mean of permuted, T = mean(d) / (sd(d) / √m), sd with ddof = 1, p from t with m − 1
    degrees of freedom. ValueError below two shards.
    """
    from scipy import special

    d = np.asarray(canonical, np.float64) - np.asarray(permuted, np.float64).mean(axis=1)
    if len(d) < 2:
        raise ValueError(f"need two shards, got {len(d)}")
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    mean = float(d.mean())
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    return Tested(t, float(special.stdtr(len(d) - 1, -t)))


class Gap(NamedTuple):
    """A gap in points of score with its 95 % interval, and the one-sided p of no gap."""

    value: float
    low: float
    high: float
    p: float


def unexplained(target: float, references: Sequence[float]) -> Gap:
    """What of a model's lead on the original items, over rephrased ones, clean models do not have: a
    difference-in-differences, E = g_target − mean(g_ref).

    The items are the same for all models, so what is random is the model: SE = s √(1 + 1/K), s the standard deviation
    between the K references, with Student's t of K − 1 degrees of freedom (the interval of one further draw; Crawford &
    Howell 1998, The Clinical Neuropsychologist 12:482). ValueError below three references.
    """
    from scipy import special

    k = len(references)
    if k < 3:
        raise ValueError(f"need three references, got {k}")
    g = np.asarray(references, np.float64)
    value, error = target - float(g.mean()), float(g.std(ddof=1)) * math.sqrt(1 + 1 / k)
    half = float(special.stdtrit(k - 1, 0.975)) * error
    p = float(special.stdtr(k - 1, -value / error)) if error else 0.5 if not value else float(value < 0)
    return Gap(value, value - half, value + half, p)
