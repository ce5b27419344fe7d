"""Quantiles with distribution-free intervals, and where a warm-up ends."""

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile: the smallest value that at least a share q of the values does not exceed."""
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


def quantile_interval(values: Sequence[float], q: float, level: float = 0.95) -> tuple[float, float] | None:
    """Limits of the true q-quantile that hold for independent values of any distribution; None where n is too small.

    The order statistics whose exact binomial tails stay under (1 - level) / 2 each (Conover 1999, section 3.2): a
    median needs 6 values, a p90 36, a p99 368.
    """
    from scipy.stats import binom

    n, tail = len(values), (1 - level) / 2
    ranked = sorted(values)
    # P(the k-th smallest lies above the quantile) = P(Binomial(n, q) < k), and so on; ranks from 1.
    low = int(binom.ppf(tail, n, q))
    low -= int(binom.cdf(low - 1, n, q) > tail) if low else 0
    high = int(binom.ppf(1 - tail, n, q)) + 1
    if low < 1 or high > n:
        return None
    return ranked[low - 1], ranked[high - 1]


def clustered_quantile(
    groups: Sequence[Sequence[float]], q: float, draws: int = 400
) -> tuple[float, float | None, float | None]:
    """The q-quantile of all values, and 95 % limits by drawing whole groups anew, with replacement (percentiles).

    The values of a group need not be independent. No limits for fewer than five groups.
    """
    import numpy as np

    arrays = [np.asarray(group, dtype=float) for group in groups if len(group)]
    value = float(np.quantile(np.concatenate(arrays), q, method="inverted_cdf"))
    if len(arrays) < 5:
        return value, None, None
    draw = np.random.default_rng(0)
    found = [
        np.quantile(np.concatenate([arrays[i] for i in draw.integers(0, len(arrays), len(arrays))]), q)
        for _ in range(draws)
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return value, min(float(low), value), max(float(high), value)


def needed(q: float, level: float = 0.95) -> int:
    """Fewest values that give a q-quantile an interval."""
    tail = (1 - level) / 2
    return math.ceil(math.log(tail) / math.log(max(q, 1 - q)))


def warm(values: Sequence[float]) -> int | None:
    """How many values to leave out at the beginning, by MSER on medians of log times; None if nothing settles.

    Of all cuts of the first half, the one that leaves the mean of the rest with the least standard error (White,
    Simulation 69:323, 1997). Medians of up to five values, so that a single interruption does not decide.
    """
    import statistics

    group = max(1, min(5, len(values) // 8))
    logs = [math.log(value) for value in values]
    middles = [statistics.median(logs[i : i + group]) for i in range(0, len(logs) - group + 1, group)]
    if len(middles) < 4:
        return None
    half = len(middles) // 2
    errors = [statistics.pvariance(middles[cut:]) / (len(middles) - cut) for cut in range(half + 1)]
    best = errors.index(min(errors))
    return None if best == half else best * group
