"""A night judged: the rules against the last green run, every score item by item, every noisy series; alarms confirmed.

- Rules about scores of the weights are held against the last green run; rules about figures of the runtime, about what
  compares with a relative already and about limits are judged within the night, as the spec has them.
- Versions of packages and of our own code may differ from the green run's, as finding what they do is the purpose of a
  night; what is let differ is kept with the verdict. Other data or parameters are another question: inconclusive.
- An alarm stands only if a second measurement of its suite is on the alarming side too.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighin.results import watch
from weighin.results.errors import WeighinError
from weighin.results.fingerprint import Change, bisect, fingerprints
from weighin.results.gate import Bench, Verdict, judge, rejudge
from weighin.results.history import Series, history, only
from weighin.results.lookup import matching, split_metric
from weighin.results.rules import Rule
from weighin.results.store import Store
from weighin.results.watch import Watched

LET = ("packages", "code")
"""Fields of the protocol that two nights may differ in."""

Again = Callable[[str, str], str | None]
"""Measures a variant by a suite once more: the evaluation's id, None where it has no result or no time was left."""


@dataclass(frozen=True)
class Night:
    """What a night came to. `against` is the green run, None on the first night; `cut` says why it was not whole.

    `changes` holds what differs from the green run, for each verdict that fails, by its place.
    """

    run: str
    against: str | None
    verdicts: tuple[Verdict, ...]
    watched: tuple[Watched, ...]
    changes: Mapping[int, tuple[Change, ...]]
    cut: str | None = None

    @property
    def code(self) -> int:
        """1 an alarm, 4 not everything was measured, 3 something is undecided, else 0."""
        outcomes = {v.outcome for v in self.verdicts if v.rule.role == "gate"} | {w.outcome for w in self.watched}
        if "fail" in outcomes:
            return 1
        if self.cut or any(each.kind == "gap" for each in self.watched):
            return 4
        return 3 if "inconclusive" in outcomes else 0

    def kept(self) -> list[Watched]:
        """What is kept of what was watched: all that does not pass, and a line for the whole."""
        outcome = {0: "pass", 1: "fail"}.get(self.code, "inconclusive")
        why = self.cut or f"{len(self.watched)} metrics watched"
        return [*(each for each in self.watched if each.outcome != "pass"), _whole(outcome, why)]


def _whole(outcome: Any, why: str) -> Watched:
    return Watched("night", "*", "*", "*", outcome, why)


@dataclass(frozen=True)
class _Desk:
    """What judging a night needs to know: the cells of both runs by (label, suite), and how to measure once more."""

    store: Store
    run: str
    green: str | None
    tonight: Mapping[tuple[str, str], Mapping[str, Any]]
    before: Mapping[tuple[str, str], Mapping[str, Any]]
    again: Again


def judge_night(
    store: Store, rules: Sequence[Rule], run: str, green: str | None, again: Again, *, cut: str | None = None
) -> Night:
    """The night of `run` against `green` (None: there is none yet). Raises WeighinError as `judge` does.

    A re-run is asked for once a cell, whatever alarms it has.
    """
    cells: dict[tuple[str, str], str | None] = {}

    def once(label: str, suite: str) -> str | None:
        if (label, suite) not in cells:
            cells[label, suite] = again(label, suite)
        return cells[label, suite]

    desk = _Desk(store, run, green, _cells(store, run), _cells(store, green), once)
    exact, ruled = _exact(desk, rules), _rules(desk, rules)
    same = watch.unchanged(exact)
    found = [_settled(verdict, same) for verdict in ruled(exact)]
    watched = [*exact, *_series(desk), *_gaps(desk)]
    watched = [_confirmed(desk, each) if each.outcome == "fail" else each for each in watched]
    verdicts = [_reheard(desk, each) if each.outcome == "fail" else each for each in found]
    changes = {
        place: _changes(desk, each.rule.variant, *split_metric(each.metric))
        for place, each in enumerate(verdicts)
        if each.outcome == "fail"
    }
    return Night(run, green, tuple(verdicts), tuple(watched), changes, cut)


def _cells(store: Store, run: str | None) -> dict[tuple[str, str], dict[str, Any]]:
    rows = store.rows(
        """select c.label, c.suite, coalesce(case when c.status = 'ok' then e.status end, c.status) as status,
               coalesce(c.reason, e.reason) as reason, c.evaluation_id
           from cells c left join evaluations e using (evaluation_id) left join labels l using (run_id, label)
           where c.run_id = ? order by l.position, c.suite""",
        [run],
    )
    return {(row["label"], row["suite"]): row for row in rows}


# -- the rules --------------------------------------------------------------------------------------------------------


def _rules(desk: _Desk, rules: Sequence[Rule]) -> Callable[[Sequence[Watched]], list[Verdict]]:
    """Judges the rules, once it is known what was compared with the green run item by item."""

    def judged(exact: Sequence[Watched]) -> list[Verdict]:
        beside = {
            (row["suite"], row["metric"])
            for row in desk.store.rows(
                "select suite, metric from scores where run_id = ? and beside is not null", [desk.run]
            )
        }
        known = {(each.variant, each.suite, each.metric) for each in exact} - {
            (each.variant, *place) for each in exact if (place := (each.suite, each.metric)) in beside
        }
        held = [rule for rule in rules if rule.limit is None and _covered(rule, known)]
        own = [rule for rule in rules if rule not in held]
        found = judge(desk.store, own, desk.run) if own else []
        return found + (judge(desk.store, held, desk.run, Bench(desk.green, LET)) if held else [])

    return judged


def _covered(rule: Rule, known: set[tuple[str, str, str]]) -> bool:
    suite, metric = split_metric(rule.metric)
    return bool(matching(metric, [m for variant, s, m in known if (variant, s) == (rule.variant, suite)]))


def _settled(verdict: Verdict, same: Mapping[tuple[str, str], bool]) -> Verdict:
    """A score of the weights that came out as in the green run, item by item, needs no test."""
    against_green = len(verdict.sides) == 2 and verdict.sides[0].name == verdict.rule.variant
    if verdict.outcome == "pass" or not against_green or not same.get((verdict.rule.variant, verdict.metric)):
        return verdict
    return dataclasses.replace(verdict, outcome="pass", why="every item as in the green run", needs=None)


def _reheard(desk: _Desk, verdict: Verdict) -> Verdict:
    """A rule that fails, judged anew on a second measurement of its suite."""
    suite, _ = split_metric(verdict.metric)
    evaluation = desk.again(verdict.rule.variant, suite)
    if evaluation is None:
        return _undecided(verdict, "the re-run gave no result")
    judged = verdict.sides[-1]
    cell = dataclasses.replace(judged.cells[suite], evaluation_id=evaluation)
    sides = (*verdict.sides[:-1], dataclasses.replace(judged, cells={**judged.cells, suite: cell}))
    second = rejudge(desk.store, verdict, sides, Bench(waive=LET if verdict.waived else ()))
    if second.outcome != "fail":
        return _undecided(verdict, f"not confirmed by a re-run: {second.why}")
    return dataclasses.replace(verdict, why=f"{verdict.why}; confirmed by a re-run")


def _undecided(verdict: Verdict, why: str) -> Verdict:
    return dataclasses.replace(verdict, outcome="inconclusive", why=f"{verdict.why}; {why}")


# -- what is watched --------------------------------------------------------------------------------------------------


def _exact(desk: _Desk, rules: Sequence[Rule]) -> list[Watched]:
    found = []
    for (label, suite), cell in desk.tonight.items():
        old = desk.before.get((label, suite))
        if old is None or cell["status"] != "ok" or old["status"] != "ok":
            continue
        for diff in watch.diffs(desk.store, old["evaluation_id"], cell["evaluation_id"]):
            ruled = any(
                rule.role == "gate" and rule.limit is None and _covered(rule, {(label, suite, diff.metric)})
                for rule in rules
            )
            found.append(watch.watch_exact(label, suite, diff, ruled=ruled))
    return found


def _series(desk: _Desk) -> list[Watched]:
    """Every figure of the runtime that has a value tonight."""
    names = desk.store.rows(
        "select distinct suite, metric from scores where run_id = ? and runtime and value is not null order by all",
        [desk.run],
    )
    lists = [history(desk.store, f"{row['suite']}.{row['metric']}", run=desk.run) for row in names]
    ours = [each for found in lists for each in found if each.nights[-1].run == desk.run]
    return [watch.watch_series(each) for each in ours]


def _gaps(desk: _Desk) -> list[Watched]:
    """Cells that failed or were not reached, and those that the green run has a result for and tonight has not."""
    found = []
    for (label, suite), cell in desk.tonight.items():
        before = desk.before.get((label, suite))
        if cell["status"] == "abstained" and before is not None and before["status"] == "ok":
            why = f"measured in the green run, abstained tonight: {cell['reason']}"
        elif cell["status"] not in ("ok", "abstained"):
            why = f"{cell['status']}: {cell['reason'] or 'not reached'}"
        else:
            continue
        found.append(Watched("gap", label, suite, "*", "inconclusive", why))
    return found


def _confirmed(desk: _Desk, each: Watched) -> Watched:
    """An alarm after a second measurement, with what changed; without one it is undecided."""
    evaluation = desk.again(each.variant, each.suite)
    if evaluation is None:
        return dataclasses.replace(each, outcome="inconclusive", why=f"{each.why}; the re-run gave no result")
    if each.kind == "exact":
        old = desk.before[each.variant, each.suite]["evaluation_id"]
        second = [diff for diff in watch.diffs(desk.store, old, evaluation) if diff.metric == each.metric]
        if not any(diff.alarming for diff in second):
            why = f"{each.why}; a re-run came out otherwise, so this score is not deterministic"
            return dataclasses.replace(each, outcome="inconclusive", why=why)
    elif not watch.series_confirmed(_series_of(desk, each), _value(desk.store, evaluation, each.metric)):
        return dataclasses.replace(each, outcome="pass", why=f"{each.why}; not confirmed by a re-run")
    changes = _changes(desk, each.variant, each.suite, each.metric)
    return dataclasses.replace(each, why=f"{each.why}; confirmed by a re-run", changes=changes)


def _series_of(desk: _Desk, each: Watched) -> Series:
    return only(history(desk.store, each.name, variant=each.variant, run=desk.run), each.variant, each.metric)


def _value(store: Store, evaluation: str, metric: str) -> float | None:
    rows = store.rows(
        "select value from evaluation_scores where evaluation_id = ? and metric = ?", [evaluation, metric]
    )
    return float(rows[0]["value"]) if rows and rows[0]["value"] is not None else None


def _changes(desk: _Desk, variant: str, suite: str, metric: str) -> tuple[Change, ...]:
    """What the fingerprint says differs from the green run, or from the oldest night where there is none."""
    try:
        nights = only(history(desk.store, f"{suite}.{metric}", variant=variant, run=desk.run), variant, metric).nights
    except WeighinError:  # it never had a value
        nights = ()
    places = [(night.run, night.evaluation) for night in nights if night.run != desk.run]
    green = desk.before.get((variant, suite))
    if green is not None:
        runs = [run for run, _ in places]
        later = places[runs.index(str(desk.green)) + 1 :] if desk.green in runs else []
        places = [(str(desk.green), green["evaluation_id"]), *later]
    places.append((desk.run, desk.tonight[variant, suite]["evaluation_id"]))
    if len(places) < 2:
        return ()
    return tuple(bisect([run for run, _ in places], fingerprints(desk.store, places)))
