"""The statistics behind every interval and verdict: pure functions of numbers, each with the page it comes from.

views.sql reckons the same intervals for display; a test holds the two together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

MIN_CLUSTERS = 5
"""Below this many independent groups a spread between them is a guess, and no interval is given."""


def normal(p: float) -> float:
    """Quantile of the standard normal distribution at probability `p`."""
    from scipy import special

    return float(special.ndtri(p))


def student(p: float, df: float) -> float:
    """Quantile of Student\'s t distribution at probability `p` with `df` degrees of freedom."""
    from scipy import special

    return float(special.stdtrit(df, p))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a share (Wilson 1927, JASA 22:209)."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z2 = normal(0.5 + level / 2) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Exact interval of a share by inverting the binomial test (Clopper & Pearson 1934, Biometrika 26:404).

    Counts divided by a design effect need not be whole.
    """
    from scipy import special

    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def tango_z(b: float, c: float, n: float, margin: float, *, corrected: bool = True) -> float:
    """Score statistic of H0: drop >= `margin`, where drop = (b - c) / n of `n` paired items (Tango 1998,
    Statistics in Medicine 17:891); strongly negative speaks for a drop below the margin.

    `b` items went from right to wrong, `c` from wrong to right. `corrected` adds 1/2 to the numerator, which keeps
    the exact size of the one-sided 5 % test under 5 %; without it the statistic inverts to Tango's own limits.
    """
    if min(b, c) < 0 or b + c > n * (1 + 1e-9) or n < 1:
        raise ValueError(f"need b, c >= 0 and b + c <= n, got b={b}, c={c}, n={n}")
    # restricted maximum-likelihood estimate of P(wrong -> right) under drop = margin
    qa = 2.0 * n
    qb = -(b + c) + (2 * n - (b - c)) * margin
    qc = -c * margin * (1 - margin)
    q = (math.sqrt(max(qb * qb - 4 * qa * qc, 0.0)) - qb) / (2 * qa)
    numerator = b - c - n * margin + (0.5 if corrected else 0.0)
    variance = n * (2 * q + margin * (1 - margin))
    if variance <= 1e-12 * n:  # no flips and no margin: nothing to judge by
        return 0.0 if abs(numerator) < 1e-12 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def tango_interval(b: int, c: int, n: int, level: float = 0.95) -> Interval:
    """Two-sided limits of the drop by inverting the uncorrected score test (Tango 1998)."""
    critical = normal(0.5 + level / 2)
    return -tango_upper(c, b, n, critical, corrected=False), tango_upper(b, c, n, critical, corrected=False)


def tango_upper(b: int, c: int, n: int, critical: float, *, corrected: bool = True) -> float:
    """The least margin at which `tango_z` < -`critical`: one-sided upper limit of the drop, at most 1."""
    low, high = (b - c) / n, 1.0
    if tango_z(b, c, n, high, corrected=corrected) > -critical:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if tango_z(b, c, n, middle, corrected=corrected) < -critical:
            high = middle
        else:
            low = middle
    return high


def tango_items(worse: float, better: float, margin: float, critical: float) -> float:
    """Items at which the corrected test shows the drop to be below `margin` if the shares of flips stay as they are;
    infinite where worse - better >= margin."""
    if worse - better >= margin:
        return math.inf
    low, high = 1.0, 2.0
    while tango_z(worse * high, better * high, high, margin) >= -critical:
        low, high = high, 2 * high
    while high - low > 0.5:
        middle = (low + high) / 2
        if tango_z(worse * middle, better * middle, middle, margin) < -critical:
            high = middle
        else:
            low = middle
    return high


def mcnemar_midp(b: int, c: int, alternative: Literal["worse", "two-sided"] = "worse") -> float:
    """Mid-p McNemar test of b = c (Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91).

    `worse`: P(X > b) + P(X = b) / 2 for X ~ Binomial(b + c, 1/2). `two-sided`: twice the smaller tail, at most 1.
    """
    if min(b, c) < 0:
        raise ValueError(f"need b, c >= 0, got b={b}, c={c}")
    from scipy import stats

    if b + c == 0:
        return 1.0
    worse = float(stats.binom.sf(b, b + c, 0.5) + 0.5 * stats.binom.pmf(b, b + c, 0.5))
    return worse if alternative == "worse" else min(1.0, 2 * min(worse, 1 - worse))


def sign_flip_midp(sums: Sequence[int], alternative: Literal["worse", "two-sided"] = "worse") -> float:
    """Exact mid-p of the sign-flip test on whole-number sums, one a cluster; McNemar's where each cluster is an item.

    Under H0 each cluster's sum is as likely to have the other sign; the law of the total is a convolution.
    """
    sizes = [abs(int(s)) for s in sums if s]
    if not sizes:
        return 1.0
    law: Floats = np.ones(1)
    for size in sizes:
        wider = np.zeros(len(law) + 2 * size)
        wider[: len(law)] += law / 2
        wider[2 * size :] += law / 2
        law = wider
    at = sum(sizes) + int(sum(sums))
    worse = float(law[at + 1 :].sum() + 0.5 * law[at])
    return worse if alternative == "worse" else min(1.0, 2 * min(worse, 1 - worse))


@dataclass(frozen=True)
class Mean:
    """A weighted mean with its cluster-robust standard error; `se` is None below `MIN_CLUSTERS` clusters."""

    mean: float
    se: float | None
    n: int
    clusters: int

    @property
    def df(self) -> int:
        return self.clusters - 1

    def interval(self, level: float = 0.95) -> Interval | None:
        """Two-sided Student interval."""
        if self.se is None:
            return None
        half = student(0.5 + level / 2, self.df) * self.se
        return self.mean - half, self.mean + half

    def upper(self, level: float = 0.95) -> float | None:
        """One-sided upper limit."""
        return None if self.se is None else self.mean + student(level, self.df) * self.se

    def p_greater(self) -> float | None:
        """One-sided p of H0: mean <= 0. Without any spread, that of the sign-flip test."""
        if self.se is None:
            return None
        if self.se <= 1e-12 * abs(self.mean):
            return 0.5**self.clusters if self.mean > 0 else 1.0
        from scipy import special

        return float(special.stdtr(self.df, -self.mean / self.se)) if self.se else 1.0


def clustered_mean(values: Any, clusters: Sequence[Any] | None = None, weights: Any = None) -> Mean:
    """Weighted mean with the CR1 standard error (Miller 2024, arXiv 2411.00640, section 2.2, times G / (G - 1);
    Cameron & Miller 2015, J Human Resources 50:317, section VI).

    The linearised residuals w (v - mean) are summed within each of the G clusters; without `clusters` every value is
    its own, which for equal weights is the ordinary sd / sqrt(n).
    """
    v = np.asarray(values, dtype=np.float64)
    if v.size == 0:
        raise ValueError("no values")
    w = np.ones_like(v) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(w.sum())
    if total <= 0:
        raise ValueError("the weights add up to nothing")
    mean = math.fsum(w * v) / total
    if clusters is None:
        sums: Floats = w * (v - mean)
    else:
        _, code = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
        sums = np.bincount(code.ravel(), weights=w * (v - mean)).astype(np.float64)
    groups = int(sums.size)
    se = math.sqrt(groups / (groups - 1) * math.fsum(sums * sums)) / total if groups >= MIN_CLUSTERS else None
    return Mean(mean, se, int(v.size), groups)


def design_effect(values: Any, clusters: Sequence[Any] | None) -> float:
    """How many times larger clustering makes the variance of a mean, at least 1: SE_CR1^2 / SE_iid^2 (Kish 1965)."""
    if clusters is None:
        return 1.0
    grouped, alone = clustered_mean(values, clusters).se, clustered_mean(values).se
    return max(1.0, (grouped / alone) ** 2) if grouped and alone else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold the chance of any false alarm (Holm 1979, Scand J Statist 6:65)."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def mde(flip_rate: float, n: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Least drop that a one-sided paired test sees with this power: (z_alpha + z_power) sqrt(flips / n), as in
    arXiv 2605.28873 (paired-MDE budget); `n` divided by the design effect where items are clustered."""
    return (normal(1 - alpha) + normal(power)) * math.sqrt(flip_rate / n)


def rarest_flips(n: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least share of flips that `mde` may count on: a drop is made of flips, so no fewer than the drop itself."""
    return min((normal(1 - alpha) + normal(power)) ** 2 / n, 1.0)


def items_needed(
    flip_rate: float, margin: float, drop: float = 0.0, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Items at which a true `drop` is shown to be below `margin` with this power:
    (z_alpha + z_power)^2 (flips - drop^2) / (margin - drop)^2; infinite where drop >= margin."""
    if drop >= margin:
        return math.inf
    z = normal(1 - alpha) + normal(power)
    return float(z * z * max(flip_rate - drop * drop, 0.0) / (margin - drop) ** 2)
