"""What a comparison of two recipes owes to chance in the making: variants built several times, each with other seeds.

A comparison of two checkpoints holds for these two. That one way of making them is better than another holds only if
it does for other seeds, too, so the spread between builds is part of its limits.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from weighin.results.difference import Comparison
from weighin.results.lookup import Side
from weighin.results.statistics import mde, student
from weighin.results.store import Store


@dataclasses.dataclass(frozen=True)
class Build:
    """Evaluations of the two sides in one build, or why one of them has none."""

    number: int
    evaluations: tuple[str, str] | None
    reason: str | None = None


def further_builds(store: Store, sides: tuple[Side, Side], suite: str) -> list[Build]:
    """The builds beside the variants themselves, side by side by number, so that stages which both chains share are
    of the same seeds. A side that was built once, as a base is, stands in each build as it is."""
    known = [_of_side(store, each, suite) for each in sides]
    numbers = sorted(set.intersection(*(set(one) for one in known if one))) if any(known) else []
    own = [str(each.cells[suite].evaluation_id) for each in sides]
    found = []
    for number in numbers:
        ids, why = zip(*(one.get(number, (here, None)) for one, here in zip(known, own, strict=True)), strict=True)
        reason = next((text for text in why if text), None)
        found.append(Build(number, None if reason else (str(ids[0]), str(ids[1])), reason))
    return found


def _of_side(store: Store, who: Side, suite: str) -> dict[int, tuple[str | None, str | None]]:
    """Each further build's evaluation and, where there is none, why."""
    rows = store.rows(
        """select build, b.evaluation_id, coalesce(b.reason, e.reason, e.status) as reason, e.status
           from builds b left join evaluations e using (evaluation_id)
           where b.run_id = ? and b.label = ? and b.suite = ?""",
        [who.run_id, who.name, suite],
    )
    return {row["build"]: (row["evaluation_id"], None if row["status"] == "ok" else row["reason"]) for row in rows}


def over_builds(found: Sequence[Comparison], level: float = 0.95) -> Comparison:
    """One comparison of recipes out of those of their builds, all of the same items; the first is the variants' own.

    The drop is the builds' mean. Its distance to a limit is sqrt(i² + h²): i is that of the first build's own limit,
    the part of the items, and h = t(k - 1) · s / sqrt(k) the part of the k builds, whose drops spread by s (method of
    variance estimates recovery: Zou & Donner 2008, Statistics in Medicine 27:1693). Items answer differently from
    build to build, and that is in both parts, so the limits err on the wide side. The p-value is Student's with
    Satterthwaite's degrees of freedom.
    """
    first, k = found[0], len(found)
    drops = np.array([each.drop for each in found])
    if k == 1 or first.caveat is not None or (first.method == "counted" and np.ptp(drops) == 0):
        return first
    mean, error = float(drops.mean()), float(drops.std(ddof=1)) / math.sqrt(k)
    low, high, upper = (float(first.drop if v is None else v) for v in (first.low, first.high, first.upper))
    both, one = (student(p, k - 1) * error for p in (0.975, level))
    item = (first.drop - low) / student(0.975, max(first.clusters - 1, 1))
    se = math.hypot(item, error)
    p_worse = _tail(mean, (item, error), (first.clusters - 1, k - 1))
    return dataclasses.replace(
        first,
        method=f"{first.method}, {k} builds",
        value_a=_mean([each.value_a for each in found]),
        value_b=_mean([each.value_b for each in found]),
        drop=mean,
        low=mean - math.hypot(first.drop - low, both),
        high=mean + math.hypot(high - first.drop, both),
        upper=mean + math.hypot(upper - first.drop, one),
        p_worse=p_worse,
        p_two_sided=min(1.0, 2 * min(p_worse, 1 - p_worse)),
        mde=mde(se**2, 1.0),
        builds=k,
        between=error**2 / se**2 if se else 0.0,
    )


def _tail(mean: float, errors: tuple[float, float], df: tuple[int, int]) -> float:
    """P(a drop of `mean` or more where there is none), the error being of two parts with their degrees of freedom."""
    from scipy.stats import t

    variance = sum(error**2 for error in errors)
    if variance == 0:
        return 1.0 if mean <= 0 else 0.0
    freedom = variance**2 / sum(error**4 / max(each, 1) for error, each in zip(errors, df, strict=True) if error)
    return float(t.sf(mean / math.sqrt(variance), freedom))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
