"""A metric over the runs of one spec on one class of machine: each night's value, what changed, where an alarm was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from weighin.results.errors import WeighinError
from weighin.results.fingerprint import Change, changed, classmates, fingerprints
from weighin.results.lookup import matching, split_metric, unknown
from weighin.results.store import Store

UNMARKED = {"commit"}
"""Fields that change with every commit: they are told on an alarm, and are no mark by themselves."""


@dataclass(frozen=True)
class Night:
    """One run's value with its interval; `changes` since the night before, `alarm` that was raised, None without.

    `accepted`: the run was judged green after its alarm, so that the series begins anew with it.
    """

    run: str
    at: datetime
    value: float
    low: float | None
    high: float | None
    n: int
    evaluation: str
    changes: tuple[Change, ...] = ()
    alarm: str | None = None
    accepted: bool = False


@dataclass(frozen=True)
class Series:
    """A variant's metric, oldest night first."""

    spec: str
    variant: str
    suite: str
    metric: str
    unit: str
    better: str
    runtime: bool
    beside: str | None
    neutral: float
    nights: tuple[Night, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.suite}.{self.metric}"

    def since_accepted(self) -> "list[Night]":
        """The nights from the last accepted alarm on, which are those that a chart may be made of."""
        starts = [place for place, night in enumerate(self.nights) if night.accepted]
        return list(self.nights[starts[-1] if starts else 0 :])

    def worse(self, value: float) -> float:
        """A value on a scale where more is worse: the logarithm of a ratio, else the value."""
        scaled = math.log(value) if self.neutral == 1.0 and value > 0 else value
        return -scaled if self.better == "higher" else scaled


def history(
    store: Store, metric: str, *, spec: str | None = None, variant: str | None = None, run: str | None = None
) -> list[Series]:
    """The series of SUITE.METRIC, a variant and task each, in the spec's order, up to `run` (default: the newest).

    They are of that run's spec and class of machine; a run that took its value from an earlier one is no night of its
    own. Raises WeighinError for names that the store does not know.
    """
    with store.snapshot() as held:
        suite, name = split_metric(metric)
        last = _last(held, spec, run)
        rows = _rows(held, last, suite)
        known = sorted({row["metric"] for row in rows})
        chosen = matching(name, known)
        if not chosen:
            raise unknown("metric", metric, [f"{suite}.{each}" for each in known] or _suites(held, last["spec_name"]))
        labels = list(dict.fromkeys(row["variant"] for row in rows))
        if variant is not None and variant not in labels:
            raise unknown("variant", variant, labels)
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            if row["metric"] in chosen and variant in (None, row["variant"]):
                groups.setdefault((row["metric"], row["variant"]), []).append(row)
        return [_series(held, last["spec_name"], group) for _, group in sorted(groups.items(), key=_place)]


def _place(item: tuple[tuple[str, str], Sequence[dict[str, Any]]]) -> tuple[int, str, int]:
    (metric, _), rows = item
    return rows[-1]["place"], metric, rows[-1]["position"]


def _last(store: Store, spec: str | None, run: str | None) -> dict[str, Any]:
    known = store.rows(
        "select run_id, spec_name, machine_key, started_at from runs order by started_at desc, run_id desc"
    )
    found = [row for row in known if spec in (None, row["spec_name"]) and run in (None, row["run_id"])]
    if not found:
        names = {row["spec_name"] for row in known}
        raise unknown("run", run, {r["run_id"] for r in known}) if run else unknown("spec with a run", str(spec), names)
    return found[0]


def _suites(store: Store, spec: str) -> list[str]:
    rows = store.rows("select distinct suite from cells join runs using (run_id) where spec_name = ?", [spec])
    return [f"{row['suite']}.…" for row in rows]


def _rows(store: Store, last: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    return store.rows(
        """select s.*, r.started_at from scores s join runs r using (run_id)
           where s.suite = ? and s.metric <> '*' and s.value is not null and not s.reused and r.spec_name = ?
               and list_contains(?, r.machine_key) and r.started_at <= ?
           order by r.started_at, s.run_id""",
        [suite, last["spec_name"], classmates(store, last["machine_key"]), last["started_at"]],
    )


def _series(store: Store, spec: str, rows: Sequence[dict[str, Any]]) -> Series:
    last = rows[-1]
    prints = fingerprints(store, [(row["run_id"], row["evaluation_id"]) for row in rows])
    raised = _alarms(store, f"{last['suite']}.{last['metric']}", last["variant"])
    nights = []
    for place, row in enumerate(rows):
        since = changed(prints[place - 1], prints[place]) if place else []
        why, accepted = raised.get(row["run_id"], (None, False))
        nights.append(
            Night(
                row["run_id"], row["started_at"], row["value"], row["ci_low"], row["ci_high"], row["n"],
                row["evaluation_id"], tuple(each for each in since if each.field not in UNMARKED), why, accepted,
            )
        )  # fmt: skip
    return Series(
        spec, last["variant"], last["suite"], last["metric"], last["unit"] or "1", last["better"], last["runtime"],
        last["beside"], last["neutral"] or 0.0, tuple(nights),
    )  # fmt: skip


def _alarms(store: Store, metric: str, variant: str) -> dict[str, tuple[str, bool]]:
    """Why an alarm was raised, by run, and whether a later judgement of that run passes."""
    rows = store.rows(
        """with newest as (
               select run_id, judgement_id from verdicts
               qualify row_number() over (partition by run_id order by judged_at desc, judgement_id) = 1),
           green as (
               select run_id, n.judgement_id from newest n join verdicts v using (run_id, judgement_id)
               group by all having bool_and(v.outcome = 'pass'))
           select v.run_id, v.why,
               g.judgement_id is not null and json_extract_string(v.rule, '$.watch') = 'series' as accepted
           from verdicts v left join green g on g.run_id = v.run_id and g.judgement_id <> v.judgement_id
           where v.metric = ? and json_extract_string(v.rule, '$.variant') = ? and v.outcome = 'fail'
           order by v.judged_at""",
        [metric, variant],
    )
    return {row["run_id"]: (row["why"], row["accepted"]) for row in rows}


def only(found: Sequence[Series], variant: str, metric: str) -> Series:
    """The one series of a variant and metric. Raises WeighinError where there is none."""
    for each in found:
        if (each.variant, each.metric) == (variant, metric):
            return each
    raise WeighinError(f"no series of {variant}: {metric}")
