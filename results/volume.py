"""The hypervolume of a front, how it changed since another run, and the front's knee."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weighin.results.objectives import Objective
from weighin.results.pareto import bend, hypervolume, knee, nondominated
from weighin.results.render import digits, interval
from weighin.results.statistics import Floats, Interval


@dataclass(frozen=True)
class Volume:
    """The space a front dominates up to a fixed reference point, with its 95 % limits, or the `reason` it has none.

    The product, over the objectives, of what lies between figure and reference: a difference for shares, the natural
    logarithm of a ratio for time, memory and energy. `change` is since the run `against`; `no_change` says why there
    is none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    reference: tuple[float, ...] = ()
    against: str | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    no_change: str | None = None


def in_words(volume: Volume) -> list[str]:
    """A sentence on the hypervolume, and one on its change."""
    if volume.value is None:
        return [f"Hypervolume: none; {volume.reason}."]
    said = [f"Hypervolume: {interval(volume.value, volume.low, volume.high, '1')}."]
    if volume.change is None or volume.change_low is None or volume.change_high is None:
        return [*said, f"Its change: none; {volume.no_change}."]
    limits = f"[{digits(volume.change_low)}, {digits(volume.change_high)}]"
    return [*said, f"Its change since run {volume.against}: {digits(volume.change)} {limits}."]


def volume_of(objectives: Sequence[Objective], reference: Sequence[float | None], draws: Floats) -> Volume:
    """The hypervolume of some variants from `reference` (objective); `draws` (draw, variant, objective) are
    coordinates on the scale of `Axis.plain`."""
    absent = [o.axis.name for o, value in zip(objectives, reference, strict=True) if value is None]
    if absent:
        where = "--reference, or `front` in the spec"
        return Volume(None, reason=f"there is no reference point for {', '.join(absent)} ({where})")
    given = tuple(value for value in reference if value is not None)
    points, origin = _points(objectives), _origin(objectives, given)
    for objective, column, value in zip(objectives, points.T, origin, strict=True):
        if np.isnan(value) or np.isnan(column).any():
            return Volume(None, reason=f"{objective.axis.name} has a figure or a reference without a logarithm")
    volume, each = _space(points, origin), np.array([_space(d, origin) for d in _redrawn(objectives, points, draws)])
    low, high = _limits(volume, each)
    return Volume(volume, max(low, 0.0), high, reference=given)


def change_since(found: Volume, prior: str, objectives: Sequence[Objective], size: int, draws: Floats) -> Volume:
    """`found` with its change since the run `prior`; `objectives` and `draws` hold its variants after the `size` now.

    Both runs are drawn together, so that what they share does not count as change.
    """
    if found.value is None:
        return found
    if size == len(objectives[0].figures):
        return replace(found, against=prior, no_change=f"no variant of run {prior} has all the figures")
    for objective in objectives:
        if set(objective.kinds[:size].tolist()).isdisjoint(objective.kinds[size:].tolist()):
            why = f"run {prior} measured {objective.axis.name} on other items or under another protocol"
            return replace(found, against=prior, no_change=why)
    points, origin = _points(objectives), _origin(objectives, found.reference)
    if np.isnan(points).any():
        return replace(found, against=prior, no_change=f"a figure of run {prior} has no logarithm")
    pairs = [(_space(d[:size], origin), _space(d[size:], origin)) for d in _redrawn(objectives, points, draws)]
    change = found.value - _space(points[size:], origin)
    low, high = _limits(change, np.array([now - then for now, then in pairs]))
    return replace(found, against=prior, change=change, change_low=low, change_high=high)


def knee_of(objectives: Sequence[Objective], draws: Floats) -> int | None:
    """The variant at the knee of the front; None where there is no knee, or none that is real.

    Real: it bends away from the chord, and without it the hypervolume up to the worst of the front falls, both by more
    than two bootstrap standard errors.
    """
    points = _points(objectives)
    if np.isnan(points).any():
        return None
    on = np.flatnonzero(nondominated(points))
    place = knee(points[on])
    if place is None:
        return None
    others = (points != points[on[place]]).any(axis=1)
    worst, span = points[on].max(axis=0), np.ptp(points[on], axis=0)

    def measures(each: Floats) -> tuple[float, float]:
        fall = _space(each / span, worst / span) - _space(each[others] / span, worst / span)
        return float(bend(each[on])[place]), fall

    errors = np.array([measures(each) for each in _redrawn(objectives, points, draws)]).std(axis=0, ddof=1)
    return int(on[place]) if (np.array(measures(points)) > 2 * errors).all() else None


def _points(objectives: Sequence[Objective]) -> Floats:
    """Figures (variant, objective) on the scale of `Axis.scaled`."""
    return np.column_stack([o.axis.scaled(o.axis.plain(o.figures)) for o in objectives])


def _origin(objectives: Sequence[Objective], reference: Sequence[float]) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        given = zip(objectives, reference, strict=True)
        found = np.array([o.axis.scaled(o.axis.plain(np.array([value])))[0] for o, value in given])
    return np.where(np.isfinite(found), found, np.nan)


def _redrawn(objectives: Sequence[Objective], points: Floats, draws: Floats) -> Floats:
    """Draws on the scale of `Axis.scaled`; where one has no logarithm, the figure itself."""
    found = np.stack([o.axis.scaled(draws[:, :, k]) for k, o in enumerate(objectives)], axis=2)
    return np.where(np.isnan(found), points, found)


def _space(points: Floats, origin: Floats) -> float:
    return hypervolume(points[nondominated(points)], origin)


def _limits(found: float, draws: Floats) -> Interval:
    """The basic bootstrap interval (Davison & Hinkley 1997, section 5.2), which takes out that draws of a maximum lie
    above it."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return 2 * found - float(high), 2 * found - float(low)
