"""Figures of a whole set of items, each with an interval: what suites need where a mean of items would not do."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from weighin.harness import Metric, Sample

BLOCKS = 100
NO_DETAIL: Mapping[str, Any] = {}
MIN_BLOCKS = 5
"""Below this many independent groups a spread between them is a guess, and no interval is given."""


class Figure(NamedTuple):
    """A value, and the limits of its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def sample(self, metric: Metric, n: int, *, reason: str, detail: Mapping[str, Any] = NO_DETAIL) -> Sample:
        """One sample of `n` items; `reason` says why, where the value is unknown."""
        known = self.value is not None
        return Sample(
            "all",
            self.value,
            metric,
            weight=float(n),
            reason=None if known else reason,
            detail=detail,
            low=self.low,
            high=self.high,
        )


def jackknife(
    figure: Callable[[Any], float],
    clusters: Sequence[Any],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Figure:
    """A figure of items and its interval, by the delete-a-group jackknife (Efron & Tibshirani 1993, chapter 11).

    `figure` takes an array of item numbers and gives a value, NaN where it is undefined. Whole clusters are left out,
    at most `BLOCKS` groups of them; limits are Student's, cut to `bounds`.
    """
    import numpy as np
    from scipy import special

    if not len(clusters):
        return Figure(None)
    names = {name: place for place, name in enumerate(dict.fromkeys(map(str, clusters)))}
    group = np.array([names[str(name)] for name in clusters]) % BLOCKS
    items = np.arange(len(clusters))
    value = float(figure(items))
    blocks = len(set(group.tolist()))
    if math.isnan(value):
        return Figure(None)
    if blocks < MIN_BLOCKS:
        return Figure(value)
    left = np.array([figure(items[group != block]) for block in range(blocks)])
    if np.isnan(left).any():
        return Figure(value)
    error = math.sqrt((blocks - 1) / blocks * float(((left - left.mean()) ** 2).sum()))
    if error <= 1e-12:
        return Figure(value)  # no spread at all says nothing about the next item
    half = float(special.stdtrit(blocks - 1, 0.975)) * error
    return Figure(value, max(bounds[0], value - half), min(bounds[1], value + half))
