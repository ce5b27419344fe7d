"""What is different since the last green run, and which alarms a run raised: what the morning asks first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from weighin.results.errors import WeighinError
from weighin.results.fingerprint import Change, Fingerprint, changed, classmates, fingerprints
from weighin.results.history import UNMARKED
from weighin.results.ledger import last_green
from weighin.results.lookup import run_named
from weighin.results.store import Store


@dataclass(frozen=True)
class Alarm:
    """A rule or series that failed: what, why, and the fields that had changed since the last green run."""

    run: str
    at: datetime
    variant: str
    metric: str
    why: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Since:
    """What changed from the last green run to `run`; `green` is None where there is none, for the reason in `why`.

    `labels` came (+) or went (-).
    """

    run: str
    green: str | None
    why: str | None
    changes: tuple[Change, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Night:
    """A run of the timeline with what differs from the one before."""

    run: str
    at: datetime
    status: str
    machine: str
    changes: tuple[Change, ...]


def since_green(store: Store, run: str | None = None) -> Since:
    """The run (default: the newest) held against the last green one of its spec and class of machine."""
    with store.snapshot() as held:
        home = held.rows("select * from runs where run_id = ?", [run_named(held, run)])[0]
        mates = classmates(held, home["machine_key"])
        try:
            green = last_green(held, home["spec_name"], mates, before=home["run_id"])
        except WeighinError:
            return Since(home["run_id"], None, "no earlier run of this spec on such a machine is green yet", (), ())
        prints = fingerprints(held, [(green, None), (home["run_id"], None)])
        before, now = (
            {row["label"]: row["variant_key"] for row in held.rows("select * from labels where run_id = ?", [each])}
            for each in (green, home["run_id"])
        )
    weights = [f"{label}: other weights" for label in now if label in before and now[label] != before[label]]
    came = [f"+ {label}" for label in now if label not in before]
    went = [f"- {label}" for label in before if label not in now]
    return Since(home["run_id"], green, None, tuple(changed(*prints)), (*weights, *came, *went))


def alarms(store: Store, spec: str, most: int = 200) -> list[Alarm]:
    """What failed in the newest judgement of each run of a spec, newest first, at most so many."""
    rows = store.rows(
        """with newest as (
               select v.*, r.started_at from verdicts v join runs r using (run_id) where r.spec_name = ?
               qualify rank() over (partition by v.run_id order by v.judged_at desc, v.judgement_id) = 1)
           select run_id, started_at, metric, rule, why, evidence from newest
           where outcome = 'fail' and json_extract_string(rule, '$.role') = 'gate'
           order by started_at desc, run_id desc, position limit ?""",
        [spec, most],
    )
    return [_alarm(row) for row in rows]


def _alarm(row: dict[str, Any]) -> Alarm:
    rule = row["rule"] if isinstance(row["rule"], dict) else {}
    told = row["evidence"].get("changed") if isinstance(row["evidence"], dict) else None
    causes = tuple(map(str, told)) if isinstance(told, list) else ()
    return Alarm(row["run_id"], row["started_at"], str(rule.get("variant", "")), row["metric"], row["why"], causes)


def timeline(store: Store, spec: str, machine_key: str, most: int = 400) -> list[Night]:
    """The newest runs of a spec on a class of machine, newest first, each with what differs from the one before."""
    with store.snapshot() as held:
        rows = held.rows(
            """select run_id, started_at, status, machine_key from runs
               where spec_name = ? and list_contains(?, machine_key)
               order by started_at desc, run_id desc limit ?""",
            [spec, classmates(held, machine_key), most],
        )
        prints = fingerprints(held, [(row["run_id"], None) for row in rows]) if rows else []
    older: Sequence[Fingerprint | None] = [*prints[1:], None]
    return [
        Night(row["run_id"], row["started_at"], row["status"], row["machine_key"], _marks(before, now))
        for row, now, before in zip(rows, prints, older, strict=True)
    ]


def _marks(before: Fingerprint | None, now: Fingerprint) -> tuple[Change, ...]:
    return tuple(each for each in changed(before, now) if each.field not in UNMARKED) if before else ()
