"""Significance tiers: variants in the order of one metric, grouped where nobody is shown to be worse than the best.

A tier begins with the best variant that is left. The next tier begins at the first one, in that order, that a paired
test shows to be worse than it (one-sided, Holm-adjusted over all that are left, 5 %). Of two variants in different
tiers it is shown only that the lower tier's best is worse than the upper tier's best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighin.results.exclusion import domination
from weighin.results.lookup import run_named
from weighin.results.objectives import Objective, axes_of, read_objective
from weighin.results.statistics import Floats, holm
from weighin.results.store import Store

LEVEL = 0.05


@dataclass(frozen=True)
class Ranking:
    """Variants with a figure, best first, with their `tiers` counted from 1; no tiers where `caveat` says why."""

    metric: str
    variants: tuple[str, ...]
    tiers: tuple[int, ...]
    caveat: str | None = None

    def tier(self, variant: str) -> int | None:
        """The tier of a variant; None without one."""
        return dict(zip(self.variants, self.tiers, strict=False)).get(variant)


def rank(store: Store, metric: str, run: str | None = None) -> Ranking:
    """The variants of a run (default: the newest) by SUITE.METRIC.

    Raises `WeighinError` for an unknown run or metric, and for one of which neither way is better.
    """
    with store.snapshot() as held:
        home = run_named(held, run)
        suite = metric.partition(".")[0]
        rows = held.rows("select * from scores where run_id = ? and suite = ? order by position", [home, suite])
        (axis,) = axes_of([metric], rows, {})
        mine = [row for row in rows if row["metric"] == axis.metric and row["value"] is not None]
        figures = np.array([row["value"] for row in mine], dtype=np.float64)
        order = np.argsort(axis.sign * figures, kind="stable")
        names = tuple(mine[i]["variant"] for i in order)
        if why := _caveat(mine):
            return Ranking(axis.name, names, (), why)
        objective = read_objective(held, axis, mine)
    if objective.method is None:
        return Ranking(axis.name, names, (), objective.caveat)
    return Ranking(axis.name, names, _tiers(objective, axis.plain(figures), order))


def _caveat(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why some of the figures may not be ranked with the others."""
    if not rows:
        return "no variant has a figure"
    unfit = {row["eligible_reason"] for row in rows if not row["eligible"]}
    return "; ".join(sorted(unfit)) or None


def _tiers(objective: Objective, points: Floats, order: np.ndarray[Any, np.dtype[np.intp]]) -> tuple[int, ...]:
    found, start, tier = [0] * len(order), 0, 1
    while start < len(order):
        left = order[start + 1 :]
        p = domination([objective], points[:, None], order[start : start + 1], left)[0]
        below = [place for place, adjusted in enumerate(holm(p.tolist())) if adjusted < LEVEL]
        end = start + 1 + below[0] if below else len(order)
        found[start:end] = [tier] * (end - start)
        start, tier = end, tier + 1
    return tuple(found)
