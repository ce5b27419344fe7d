"""Dominance among points: fronts, the space they dominate, their knee. Every coordinate counts as: less is better.

`moocore` (M. López-Ibáñez) does the dominance work; tolerances and the knee are ours.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weighin.results.statistics import Floats

if TYPE_CHECKING:
    from collections.abc import Iterator

Bools = npt.NDArray[np.bool_]

_LEAST = 1e-9
_SLACK = 1 + _LEAST
"""0.75 - 0.74 is a little more than 0.01 in floating point, and counts as equal under a tolerance of 0.01."""
_PIECE = 1 << 24
"""Pairs of points that are held against each other at a time, to bound memory."""


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
    # whatever a row beats, a row that dominates it beats as well: the plain front has all rivals that matter
    rivals = points[plain]
    kept = np.ones(len(points), dtype=np.bool_)
    for piece in _pieces(len(points), points[0].size * len(rivals)):
        kept[piece] = ~beats(rivals, points[piece], tolerance).any(axis=0)
    return kept


def beats(rivals: Floats, points: Floats, tolerance: Floats) -> Bools:
    """Whether each rival (first axis) beats each point (second axis); see `nondominated`."""
    loss = rivals[:, None, :] - points[None, :, :]
    slack = tolerance * _SLACK
    fine = (loss <= slack).all(axis=2) & (loss < -slack).any(axis=2)
    strict = tolerance == 0
    if strict.all():
        return np.asarray(fine)
    # a strict axis that gains cannot be part of a circle; only without one is the balance of the others asked
    gains = (loss[:, :, strict] < 0).any(axis=2)
    balance = (loss[:, :, ~strict] / tolerance[~strict]).sum(axis=2)
    return np.asarray(fine & (gains | (balance < -_LEAST)))


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


def _pieces(rows: int, width: int) -> "Iterator[slice]":
    step = max(1, _PIECE // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, start + step)
