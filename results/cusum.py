"""Sequential-rank CUSUM: has a noisy series got worse? No night's distribution is assumed, no past is needed.

Each night is ranked among those before it, the rank is turned into a normal score, and what the scores exceed `K` by
is added up; the sum never falls below 0. The nights being exchangeable, the ranks' law is known whatever the noise is
(Lombard & Van Zyl 2018, arXiv 1706.03901), so one limit serves every series. `H` holds the chance of any alarm in 90
nights after the burn-in to 5 %; tests/test_cusum.py simulates it. Nights that depend on each other break this, as they
break every such chart: the series is therefore a ratio to a reference measured in turns the same night.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weighin.results.statistics import Floats

K = 0.5
"""What a score must exceed to count, in standard deviations: half the shift that is found the soonest."""
H = 5.42
"""Above this the sum raises an alarm."""
BURN_IN = 30
"""Nights that are only ranked among, before the sum begins."""


@dataclass(frozen=True)
class Chart:
    """A series' state after its last night: how many nights, the sum then, whether it is watched yet.

    `lag` is the correlation of neighbouring nights where it is too large for chance and the 5 % do not hold, else None.
    """

    nights: int
    total: float
    watched: bool
    lag: float | None

    @property
    def alarm(self) -> bool:
        return self.total > H


def scores(values: Floats) -> Floats:
    """The score of every night among those before it; `values` and the answer have shape (series, nights)."""
    found = np.empty(values.shape)
    for night in range(values.shape[1]):
        found[:, night] = score(values[:, :night], values[:, night])
    return found


def score(before: Floats, tonight: Floats) -> Floats:
    """The normal score of `tonight`, shape (series,), among the nights `before`, shape (series, nights).

    The normal quantile of U = (#{before < tonight} + ties / 2 + 1/2) / (nights + 1).
    """
    from scipy.special import ndtri

    column = tonight[:, None]
    below = (before < column).sum(axis=1) + 0.5 * (before == column).sum(axis=1)
    return np.asarray(ndtri((below + 0.5) / (before.shape[1] + 1)), dtype=np.float64)


def sums(found: Floats) -> Floats:
    """The CUSUM of scores of shape (series, nights): C_t = max(0, C_{t-1} + Z_t - K), 0 during the burn-in."""
    totals = np.zeros(found.shape)
    for night in range(BURN_IN, found.shape[1]):
        totals[:, night] = np.maximum(0.0, totals[:, night - 1] + found[:, night] - K)
    return totals


def chart(values: Sequence[float]) -> Chart:
    """The state of one series in the order of its nights; a larger value is worse. Raises ValueError for no night."""
    if not len(values):
        raise ValueError("a chart needs a night")
    series = np.asarray(values, dtype=np.float64)[None, :]
    found = scores(series)
    return Chart(len(values), float(sums(found)[0, -1]), len(values) > BURN_IN, _dependence(found[0]))


def confirms(before: Sequence[float], again: float) -> bool:
    """Whether a second measurement of a night lies on the alarming side too: by itself it would raise the sum."""
    return bool(score(np.asarray([before], dtype=np.float64), np.asarray([again]))[0] > K)


def _dependence(found: Floats) -> float | None:
    """Lag-1 correlation of the scores where it exceeds 2 / sqrt(nights), the usual limit for chance."""
    if len(found) <= BURN_IN or np.ptp(found) == 0:
        return None
    centred = found - found.mean()
    lag = float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())
    return lag if abs(lag) > 2 / math.sqrt(len(found)) else None
