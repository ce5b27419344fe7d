"""What a night looks at beside its rules: every score that should not move, item by item, and every noisy series.

A score of the weights is deterministic: measured again under the same key it must come out the same, item by item. A
figure of the runtime is noisy: where it is a ratio to a reference measured in turns the same night, its series is
charted; where it is not, a change may be the machine's, so it is shown and raises no alarm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from weighin.results import cusum
from weighin.results.fingerprint import Change
from weighin.results.history import Series
from weighin.results.store import Store

Kind = Literal["exact", "series", "shown", "gap", "night"]
"""`gap`: a cell without a result. `night`: nothing was found at all."""
NOT_INTERLEAVED = "not interleaved: no reference was measured in turns with it, so a change may be the machine's"


@dataclass(frozen=True)
class Watched:
    """What one variant's metric came to tonight; `fail` is an alarm, and `changes` what its fingerprint says."""

    kind: Kind
    variant: str
    suite: str
    metric: str
    outcome: Literal["pass", "fail", "inconclusive"]
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.suite}.{self.metric}"


@dataclass(frozen=True)
class Diff:
    """One metric's items in two evaluations: how many, how many differ, how many of these are worse or better.

    `missing` were measured on one side only; `worst` holds up to five that differ, as (item, old, new).
    """

    metric: str
    better: str
    items: int
    differ: int
    worse: int
    gained: int
    missing: int
    old: float | None
    new: float | None
    same_key: bool
    worst: tuple[tuple[str, float | None, float | None], ...] = ()

    @property
    def alarming(self) -> bool:
        """Under the same key anything that differs; else a score that is worse as a whole, or is gone."""
        if self.same_key:
            return self.differ > 0
        if self.old is None or self.better == "none" or not self.differ:
            return False
        return self.new is None or (self.new < self.old if self.better == "higher" else self.new > self.old)

    def __str__(self) -> str:
        kinds = [f"{self.worse} worse", f"{self.gained} better", f"{self.missing} on one side only"]
        told = ", ".join(kind for kind in kinds if not kind.startswith("0 "))
        return f"{self.differ} of {self.items} items differ" + (f" ({told})" if told else "")


def diffs(store: Store, green: str, tonight: str) -> list[Diff]:
    """Every metric of two evaluations that is no figure of the runtime, sample by sample, without tolerance."""
    rows = store.rows(
        f"""{_JOINED}
            select metric, any_value(better) as better, count(*) as items,
                count(*) filter (where unlike) as differ,
                count(*) filter (where gain < 0) as worse, count(*) filter (where gain > 0) as gained,
                count(*) filter (where one_sided) as missing
            from joined group by metric order by metric""",
        {"a": green, "b": tonight},
    )
    scores = store.rows(
        "select evaluation_id, metric, value from evaluation_scores where evaluation_id in (?, ?)", [green, tonight]
    )
    values = {(row["evaluation_id"], row["metric"]): row["value"] for row in scores}
    keys = store.rows(
        "select count(distinct evaluation_key) as n from evaluations where evaluation_id in (?, ?)", [green, tonight]
    )
    return [
        Diff(
            **row,
            old=values.get((green, row["metric"])),
            new=values.get((tonight, row["metric"])),
            same_key=keys[0]["n"] == 1,
            worst=_worst(store, (green, tonight), row["metric"]) if row["differ"] else (),
        )
        for row in rows
    ]


_JOINED = """with sides as (
        select s.evaluation_id, s.metric, s.item, s.rep, s.value, m.better
        from samples s join metrics m using (evaluation_id, metric)
        where s.evaluation_id in ($a, $b) and not m.runtime),
    a as (from sides where evaluation_id = $a), b as (from sides where evaluation_id = $b),
    joined as (
        select coalesce(a.metric, b.metric) as metric, coalesce(a.better, b.better) as better,
            coalesce(a.item, b.item) as item, a.value as old, b.value as new,
            a.item is null or b.item is null as one_sided,
            one_sided or a.value is distinct from b.value as unlike,
            case coalesce(a.better, b.better) when 'higher' then b.value - a.value
                when 'lower' then a.value - b.value end as gain
        from a full join b on (a.metric, a.item, a.rep) = (b.metric, b.item, b.rep))"""


def _worst(store: Store, ids: tuple[str, str], metric: str) -> tuple[tuple[str, float | None, float | None], ...]:
    rows = store.rows(
        f"""{_JOINED} select item, old, new from joined where unlike and metric = $metric
            order by gain nulls first, item limit 5""",
        {"a": ids[0], "b": ids[1], "metric": metric},
    )
    return tuple((row["item"], row["old"], row["new"]) for row in rows)


def watch_exact(variant: str, suite: str, diff: Diff, *, ruled: bool) -> Watched:
    """What an exact difference means; where a gate rule asks after the metric (`ruled`) its margin decides a change
    that a new key explains."""
    evidence: dict[str, Any] = {
        "items": diff.items,
        "differ": diff.differ,
        "worst": [list(each) for each in diff.worst],
    }
    if not diff.differ:
        return Watched("exact", variant, suite, diff.metric, "pass", f"all {diff.items} items as before", evidence)
    if diff.same_key:
        why = f"{diff}, although weights, data, code and packages are the same"
        return Watched("exact", variant, suite, diff.metric, "fail", why, evidence)
    if diff.alarming and not ruled:
        why = f"{diff}, and the score fell from {_number(diff.old)} to {_number(diff.new)}"
        if diff.better == "lower":
            why = why.replace(" fell ", " rose ")
        return Watched("exact", variant, suite, diff.metric, "fail", why, evidence)
    why = str(diff) + (": the gate's rule decides" if diff.alarming else ": not worse as a whole")
    return Watched("exact", variant, suite, diff.metric, "pass", why, evidence)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def watch_series(series: Series) -> Watched:
    """What a figure of the runtime came to on the series' last night."""
    place = (series.variant, series.suite, series.metric)
    if series.beside is None or series.better == "none":
        why = NOT_INTERLEAVED if series.beside is None else "neither way is better"
        return Watched("shown", *place, "pass", why)
    found = cusum.chart([series.worse(night.value) for night in series.since_accepted()])
    evidence: dict[str, Any] = {"nights": found.nights, "sum": found.total, "limit": cusum.H, "lag": found.lag}
    if not found.watched:
        left = cusum.BURN_IN + 1 - found.nights
        return Watched("series", *place, "pass", f"night {found.nights}: watched in {left} nights", evidence)
    depends = (
        "" if found.lag is None else f"; nights depend on each other (r = {found.lag:.2f}), so alarms are likelier"
    )
    why = f"night {found.nights}: sum {found.total:.2f}, limit {cusum.H}{depends}"
    return Watched("series", *place, "fail" if found.alarm else "pass", why, evidence)


def series_confirmed(series: Series, again: float | None) -> bool:
    """Whether a second measurement of the last night, None where it gave no value, is on the alarming side too."""
    before = [series.worse(night.value) for night in series.since_accepted()[:-1]]
    return again is not None and cusum.confirms(before, series.worse(again))


def unchanged(found: Sequence[Watched]) -> Mapping[tuple[str, str], bool]:
    """Whether every item came out as before, by (variant, SUITE.METRIC), of what was compared exactly."""
    return {(each.variant, each.name): not each.evidence["differ"] for each in found if each.kind == "exact"}
