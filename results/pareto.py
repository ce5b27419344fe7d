"""The Pareto front of two metrics: the variants that no other beats in both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.results.errors import WeighinError
from weighin.results.lookup import one_metric, run_named
from weighin.results.statistics import Floats
from weighin.results.store import Store


@dataclass(frozen=True)
class FrontRow:
    """A variant and its place: on the front, dominated by others, or left out for a `reason`."""

    variant: str
    x: float | None
    y: float | None
    on_front: bool
    dominated_by: tuple[str, ...] = ()
    reason: str | None = None


def nondominated(points: Floats) -> npt.NDArray[np.bool_]:
    """Which rows (item, objective; less is better) no other row dominates; equal rows stay together.

    Row i dominates j where it is nowhere more and somewhere less.
    """
    kept = np.ones(len(points), dtype=np.bool_)
    # a dominating row comes first in lexicographic order, so each row need only be held against the front so far
    front: list[int] = []
    for index in np.lexsort(points.T[::-1]):
        if front:
            rivals = points[front]
            beaten = (rivals <= points[index]).all(axis=1) & (rivals < points[index]).any(axis=1)
            if beaten.any():
                kept[index] = False
                continue
        front.append(int(index))
    return kept


def front(store: Store, x: str, y: str, run: str | None = None) -> list[FrontRow]:
    """Every variant of a run with its place among `x` and `y`, each written SUITE.METRIC; in the spec's order.

    Only eligible figures of the run's machine enter: none that is missing, modelled or of a simulated format. Raises
    `WeighinError` for an unknown metric, one that is several, or one of which neither way is better.
    """
    with store.snapshot() as held:
        home = run_named(held, run)
        rows = held.rows("select * from scores where run_id = ?", [home])
        labels = held.rows("select label from labels where run_id = ? order by position", [home])
        machine = held.rows("select machine_key from runs where run_id = ?", [home])[0]["machine_key"]
    axes = [one_metric(name, rows) for name in (x, y)]
    signs = [_sign(axis, rows) for axis in axes]
    entries = [_entry(label["label"], axes, rows, machine) for label in labels]
    return _placed(entries, signs)


def _sign(axis: tuple[str, str], rows: list[dict[str, Any]]) -> float:
    """What to multiply by so that less is better."""
    directions = {row["better"] for row in rows if (row["suite"], row["metric"]) == axis}
    if len(directions) != 1 or directions == {"none"}:
        raise WeighinError(f"metric {'.'.join(axis)}: neither way is better, so it has no front")
    return -1.0 if directions == {"higher"} else 1.0


def _entry(label: str, axes: list[tuple[str, str]], rows: list[dict[str, Any]], machine: str) -> FrontRow:
    values: list[float | None] = []
    reasons = []
    for suite, metric in axes:
        mine = [row for row in rows if row["variant"] == label and row["suite"] == suite]
        row = next((r for r in mine if r["metric"] == metric), next((r for r in mine if r["metric"] == "*"), None))
        values.append(row["value"] if row else None)
        if row is None:
            reasons.append(f"{suite}.{metric}: not measured")
        elif not row["eligible"]:
            reasons.append(f"{suite}.{metric}: {row['reason'] or row['eligible_reason']}")
        elif row["machine_key"] != machine:
            reasons.append(f"{suite}.{metric}: measured on another machine")
    return FrontRow(label, values[0], values[1], False, (), "; ".join(reasons) or None)


def _placed(entries: list[FrontRow], signs: list[float]) -> list[FrontRow]:
    inside = [entry for entry in entries if entry.reason is None and entry.x is not None and entry.y is not None]
    points = np.array([(e.x, e.y) for e in inside], dtype=np.float64).reshape(-1, 2) * signs
    mask = nondominated(points)
    placed = {}
    for entry, point, on_front in zip(inside, points, mask, strict=True):
        beaten = (points <= point).all(axis=1) & (points < point).any(axis=1)
        better = tuple(inside[i].variant for i in np.flatnonzero(beaten & mask))
        placed[entry.variant] = FrontRow(entry.variant, entry.x, entry.y, bool(on_front), better)
    return [placed.get(entry.variant, entry) for entry in entries]
