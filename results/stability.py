"""How figures move together when the items are drawn anew: the joint bootstrap (Efron & Tibshirani 1993, chapter 8).

The items of an objective are drawn once a draw for all variants, whole clusters at a time, so that what is paired stays
paired; objectives on the same clusters of one suite share the draw. How often a variant is on the front of the drawn
figures is its stability. It is no probability of being on the true front: noise comes on top of noise, and it is
biased low.
"""

from collections.abc import Sequence

import numpy as np

from weighin.results.objectives import Objective
from weighin.results.pareto import nondominated
from weighin.results.statistics import Floats

DRAWS = 200


def drawn(objectives: Sequence[Objective], draws: int = DRAWS, seed: int = 0) -> Floats:
    """Coordinates (draw, variant, objective) of as many bootstrap draws, on the scale of `Axis.plain`.

    A figure of a whole set is drawn from the limits it brings along, each variant by itself; what has neither several
    clusters nor limits, a maximum too, stays as it is.
    """
    rng = np.random.default_rng(seed)
    shared: dict[tuple[str, tuple[str, ...]], Floats] = {}
    found = np.empty((draws, len(objectives[0].figures), len(objectives)))
    for k, objective in enumerate(objectives):
        names = objective.names
        if len(names) > 1 and (objective.axis.suite, names) not in shared:
            even = np.full(len(names), 1 / len(names))
            shared[objective.axis.suite, names] = rng.multinomial(len(names), even, size=draws).astype(np.float64)
        counts = shared.get((objective.axis.suite, names))
        figures = np.tile(objective.figures, (draws, 1))
        if counts is not None and moves(objective):
            new = _redrawn(objective, counts[:, objective.clusters])
            figures = np.where(np.isfinite(new), new, figures)
        own = ~np.isnan(objective.low)
        if own.any():
            figures[:, own] = _within(objective, rng.standard_normal((draws, int(own.sum()))))
        with np.errstate(invalid="ignore", divide="ignore"):
            coordinates = objective.axis.plain(figures)
        found[:, :, k] = np.where(np.isfinite(coordinates), coordinates, objective.axis.plain(objective.figures))
    return found


def moves(objective: Objective) -> bool:
    """Whether drawing the items anew says how far the figures could lie elsewhere."""
    own = bool((~np.isnan(objective.low)).all()) and len(objective.low) > 0
    return own or (objective.method != "counted" and objective.axis.reduce != "max" and len(objective.names) > 1)


def stability(draws: Floats, tolerance: Floats) -> Floats:
    """The share of the draws (draw, variant, objective) in which each variant is on the front."""
    return np.asarray(np.mean([nondominated(points, tolerance) for points in draws], axis=0))


def _redrawn(objective: Objective, counts: Floats) -> Floats:
    """Figures (draw, variant) where item i is drawn `counts` (draw, item) times; NaN where no item of it is."""
    reduce = objective.axis.reduce
    if reduce == "median":
        return _medians(objective.values, counts)
    values = np.nan_to_num(objective.values)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if reduce == "sum":
            return np.asarray(counts @ values)
        means = _rounded(counts @ (objective.weights * values) / (counts @ objective.weights))
        return np.asarray(np.exp(means) if reduce == "exp_mean" else means)


def _rounded(values: Floats) -> Floats:
    """Without the last digits, in which a product of matrices may tell two equal columns apart."""
    parts, powers = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(np.ldexp(parts, 44)), powers - 44))


def _medians(values: Floats, counts: Floats) -> Floats:
    """Medians (draw, variant) of items drawn `counts` times; of two middle ones the mean."""
    found = np.full((len(counts), values.shape[1]), np.nan)
    for column, each in enumerate(values.T):
        order = np.argsort(each)[: int((~np.isnan(each)).sum())]
        if len(order) == 0:
            continue
        reached = np.cumsum(counts[:, order], axis=1)
        total = reached[:, -1]
        some = total > 0
        below = np.argmax(reached >= total[:, None] / 2, axis=1)
        above = np.argmax(reached > total[:, None] / 2, axis=1)
        found[some, column] = ((each[order[below]] + each[order[above]]) / 2)[some]
    return found


def _within(objective: Objective, normal: Floats) -> Floats:
    """Figures (draw, variant) around those that bring limits, each side as wide as its limit says."""
    own = ~np.isnan(objective.low)
    middle = objective.figures[own]
    below, above = (middle - objective.low[own]) / 1.96, (objective.high[own] - middle) / 1.96
    return np.asarray(middle + normal * np.where(normal < 0, below, above))
