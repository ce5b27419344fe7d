"""Who is confidently dominated, by the pairwise intersection-union test (Berger 1982, Technometrics 24:295).

Variant j is dominated by i where i is better in every objective. The test of that is as hard as the hardest of its
parts: p_ij is the largest p of the objectives, each a paired one-sided test on the items both were measured on, and j
is excluded where some p_ij is below 5 %. Objectives that are counted (bytes) have no p: there, not to be worse is
enough. An objective that no paired test speaks for excludes nobody.

With a tolerance, "better" becomes "not worse by the tolerance or more" (the gate's non-inferiority test), and some
objective must be better by more than it: a counted one is, or the smallest such p, times their number (Bonferroni), is
part of the maximum.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from weighin.results.difference import FEW_CLUSTERS
from weighin.results.objectives import Objective
from weighin.results.pareto import beats, nondominated
from weighin.results.statistics import MIN_CLUSTERS, Floats, design_effect, sign_flip_midp, tango_z

Places = npt.NDArray[np.intp]

_PIECE = 256
"""Rivals held against everybody at a time, to bound memory."""


def excluded(objectives: Sequence[Objective], points: Floats, level: float = 0.05) -> list[tuple[int, float] | None]:
    """For each variant who confidently dominates it, and the p of that; None where nobody does.

    `points` (variant, objective) are the figures, less is better. Rivals on the front are named before others.
    """
    found: list[tuple[int, float] | None] = [None] * len(points)
    if any(objective.method is None for objective in objectives):
        return found
    on = nondominated(points, np.array([objective.axis.tolerance for objective in objectives]))
    for rivals in (np.flatnonzero(on), np.flatnonzero(~on)):
        for start in range(0, len(rivals), _PIECE):
            some = rivals[start : start + _PIECE]
            left = np.array([i for i, known in enumerate(found) if known is None], dtype=np.intp)
            p = domination(objectives, points, some, left)
            best = p.argmin(axis=0)
            for column, j in enumerate(left):
                if p[best[column], column] < level:
                    found[j] = int(some[best[column]]), float(p[best[column], column])
    return found


def domination(objectives: Sequence[Objective], points: Floats, rivals: Places, others: Places) -> Floats:
    """p (rival, other) that the rival does not dominate the other; 1 where the figures already speak against it."""
    tolerance = np.array([objective.axis.tolerance for objective in objectives])
    i, j = np.nonzero(beats(points[rivals], points[others], tolerance))
    first, second = rivals[i], others[j]
    worst, least = np.zeros(len(i)), np.ones(len(i))
    tested = [k for k, objective in enumerate(objectives) if objective.method != "counted"]
    sure = np.zeros(len(i), dtype=np.bool_)
    for k, objective in enumerate(objectives):
        if k not in tested:
            # the figures themselves: not worse is known of every pair left, better by more than the tolerance here
            sure |= points[second, k] - points[first, k] > tolerance[k] * (1 + 1e-9)
            continue
        same = objective.kinds[first] == objective.kinds[second]
        p = np.ones((2, len(i)))
        shifts = (tolerance[k], -tolerance[k]) if tolerance[k] else (0.0,)
        for row, shift in enumerate(shifts):
            p[row, same] = _better(objective, first[same], second[same], shift)
        worst = np.maximum(worst, p[0])
        least = np.minimum(least, p[len(shifts) - 1])
        if not tolerance[k]:  # better here is part of the maximum already
            sure |= True
    found = np.ones((len(rivals), len(others)))
    found[i, j] = np.where(sure, worst, np.maximum(worst, np.minimum(1.0, len(tested) * least)))
    return found


def _better(objective: Objective, first: Places, second: Places, shift: float) -> Floats:
    """One-sided p, a pair, of H0: the first is worse than the second by `shift` or more, in coordinates of `plain`."""
    if len(first) == 0:
        return np.ones(0)
    if objective.method == "mean":
        return _student(objective, first, second, shift)
    if not objective.clustered and shift == 0:
        return _mcnemar(objective, first, second)
    pairs = zip(first, second, strict=True)
    one = _clustered_share if objective.clustered else _tango
    return np.array([one(objective, i, j, shift) for i, j in pairs])


def _flips(objective: Objective, first: Places, second: Places) -> tuple[Floats, Floats]:
    """Items, a pair, on which the first alone is right, and on which the second alone is."""
    good = (objective.values == (1.0 if objective.axis.sign < 0 else 0.0)).astype(np.float64)
    both, total = _products(good, first, second), good.sum(axis=0)
    return total[first] - both, total[second] - both


def _mcnemar(objective: Objective, first: Places, second: Places) -> Floats:
    """Mid-p McNemar, as `statistics.mcnemar_midp`: P(X > b) + P(X = b) / 2 is half of P(X > b) + P(X > b - 1)."""
    from scipy import special

    b, c = _flips(objective, first, second)
    flips = (b + c).astype(np.int64)
    above = special.bdtrc(b, flips, 0.5)
    from_b = np.where(b > 0, special.bdtrc(np.maximum(b - 1, 0), flips, 0.5), 1.0)
    return np.where(flips == 0, 1.0, (above + from_b) / 2)


def _tango(objective: Objective, i: int, j: int, shift: float) -> float:
    """Tango's corrected score test, as the gate's."""
    from scipy import special

    d = _items(objective, i, j)
    return float(special.ndtr(tango_z(int((d < 0).sum()), int((d > 0).sum()), len(d), shift)))


def _clustered_share(objective: Objective, i: int, j: int, shift: float) -> float:
    """Sign flips of whole clusters; with a tolerance Tango's score over the design effect, against Student's t."""
    d, clusters = _items(objective, i, j), _clusters(objective, i)
    _, codes = np.unique(clusters, return_inverse=True)
    if shift == 0:
        return sign_flip_midp([round(s) for s in np.bincount(codes, weights=d)])
    from scipy import special

    groups = int(codes.max()) + 1
    z = tango_z(int((d < 0).sum()), int((d > 0).sum()), len(d), shift) / design_effect(d, codes.tolist()) ** 0.5
    p = float(special.stdtr(groups - 1, z))
    pair = np.array([i]), np.array([j])
    return max(p, float(_student(objective, *pair, shift)[0])) if groups < FEW_CLUSTERS else p


def _items(objective: Objective, i: int, j: int) -> Floats:
    """What the first is better by, item by item, on the items of their kind."""
    scored = ~np.isnan(objective.values[:, i])
    return np.asarray(objective.axis.sign * (objective.values[scored, j] - objective.values[scored, i]))


def _clusters(objective: Objective, i: int) -> Places:
    return objective.clusters[~np.isnan(objective.values[:, i])]


def _student(objective: Objective, first: Places, second: Places, shift: float) -> Floats:
    """Cluster-robust paired t, as `statistics.clustered_mean`, of many pairs at once.

    The residuals of a difference are the difference of the residuals, so each variant's are summed once per cluster.
    """
    from scipy import special

    rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    i, j = place[: len(first)], place[len(first) :]
    scored = ~np.isnan(objective.values[:, rows])
    weights, values = objective.weights[:, rows], np.nan_to_num(objective.values[:, rows])
    total = weights.sum(axis=0)
    means = (weights * values).sum(axis=0) / total
    sums, held = (_per_cluster(objective, each) for each in (weights * (values - means), scored.astype(np.float64)))
    sums -= sums.mean(axis=1, keepdims=True)  # what all have in common would only cost digits below
    groups = (held > 0).sum(axis=0)[i]
    square = (sums * sums).sum(axis=0)
    spread = np.maximum(square[i] + square[j] - 2 * _products(sums, i, j), 0.0)
    lead = objective.axis.sign * (means[j] - means[i]) + shift
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(groups / (groups - 1.0) * spread) / total[i]
        p = special.stdtr(groups - 1, -lead / error)
    p = np.where(error <= 1e-12 * np.abs(lead), np.where(lead > 0, 0.5**groups, 1.0), p)
    return np.where(groups >= MIN_CLUSTERS, p, 1.0)


def _per_cluster(objective: Objective, items: Floats) -> Floats:
    """Items (item, variant) summed (cluster, variant)."""
    sums = np.zeros((len(objective.names), items.shape[1]))
    np.add.at(sums, objective.clusters, items)
    return sums


def _products(columns: Floats, first: Places, second: Places) -> Floats:
    """The inner product of two columns, a pair; all of the first with all of the second by one multiplication."""
    left, i = np.unique(first, return_inverse=True)
    right, j = np.unique(second, return_inverse=True)
    return np.asarray((columns[:, left].T @ columns[:, right])[i, j])
