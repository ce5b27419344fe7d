"""Dominance among points: fronts, the space they dominate, their knee. Every coordinate counts as: less is better.

`moocore` (M. López-Ibáñez) does the dominance work; tolerances and the knee are ours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.results.statistics import Floats

Bools = npt.NDArray[np.bool_]

_LEAST = 1e-9
_SLACK = 1 + _LEAST
"""0.75 - 0.74 is a little more than 0.01 in floating point, and counts as equal under a tolerance of 0.01."""
_PIECE = 32
"""Rivals that are held against all points at a time."""


def nondominated(points: Floats, tolerance: Floats | None = None) -> Bools:
    """Which rows (item, objective) no other row beats; equal rows stay together.

    Row i beats row j where it is nowhere worse by more than the `tolerance` (objective), somewhere better by more, and
    all in all, reckoned in tolerances, gains more than it gives away: without this last, three rows could beat each
    other in a circle. Without tolerance that is Pareto dominance. Raises `ValueError` for values that are not finite.
    """
    if not np.isfinite(points).all():
        raise ValueError("a front needs finite coordinates")
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    plain = _nondominated(points)
    if tolerance is None or not tolerance.any():
        return plain
    # whatever a row beats, a row that dominates it beats as well: the plain front has all rivals that matter, and those
    # that are good all round leave few points to the others
    rivals = points[plain]
    rivals = rivals[np.argsort((rivals / np.maximum(np.ptp(points, axis=0), _LEAST)).sum(axis=1))]
    left = np.arange(len(points))
    for start in range(0, len(rivals), _PIECE):
        left = left[~beats(rivals[start : start + _PIECE], points[left], tolerance).any(axis=0)]
    kept = np.zeros(len(points), dtype=np.bool_)
    kept[left] = True
    return kept


def beats(rivals: Floats, points: Floats, tolerance: Floats) -> Bools:
    """Whether each rival (first axis) beats each point (second axis); see `nondominated`."""
    shape = len(rivals), len(points)
    fine, gains, sure = np.ones(shape, np.bool_), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    balance = np.zeros(shape)
    for mine, theirs, slack in zip(rivals.T, points.T, tolerance * _SLACK, strict=True):
        loss = np.subtract.outer(mine, theirs)
        fine &= loss <= slack
        better = loss < -slack
        gains |= better
        if slack:
            balance += loss / slack
        else:  # an axis without tolerance that gains cannot be part of a circle
            sure |= better
    return fine & gains & (sure | (balance < -_LEAST))


def hypervolume(points: Floats, reference: Floats) -> float:
    """The space that rows (item, objective) dominate up to the `reference` point; rows beyond it add nothing."""
    import moocore

    return float(moocore.hypervolume(points, ref=reference)) if len(points) else 0.0


def bend(points: Floats) -> Floats:
    """How far each row of a front (item, objective) lies from the chord through the extremes (from the plane, with
    more objectives), towards what is better.

    Each objective is first scaled to the span of the front, 0 to 1 (Das 1999, Structural Optimization 18:107).
    """
    span = np.ptp(points, axis=0)
    return np.asarray(1 - ((points - points.min(axis=0)) / np.where(span > 0, span, 1.0)).sum(axis=1))


def knee(points: Floats) -> int | None:
    """The row of a front with the largest `bend`; None where no row lies on the better side of the chord."""
    if len(points) < 3 or not np.ptp(points, axis=0).all():
        return None
    bends = bend(points)
    best = int(np.argmax(bends))
    return best if bends[best] > _LEAST else None


def _nondominated(points: Floats) -> Bools:
    import moocore

    found: Any = moocore.is_nondominated(np.ascontiguousarray(points), keep_weakly=True)
    return np.asarray(found, dtype=np.bool_)
