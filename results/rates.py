"""The error rates that the gate showed on a store's own data, kept among the instruments and told with each verdict."""

import uuid
from datetime import UTC, datetime
from typing import Any

from weighin.results.gate import ALPHA
from weighin.results.replay import Rate, Replay
from weighin.results.rows import CalibrationRow
from weighin.results.store import Store

GATE = "gate"
ALARM, UNSAFE = "false alarm", "unsafe pass"


def kept(store: Store, run: str, found: Replay, seconds: float) -> list[CalibrationRow]:
    """Keep what a replay of a run found. A rate passes unless its lower limit is above 5 %."""
    (here,) = store.rows("select machine_key from runs where run_id = ?", [run])
    call, now = uuid.uuid4().hex, datetime.now(UTC)
    tried = {
        "nothing changed": found.alarms,
        "nothing changed, half of the items": found.resplit,
        "the same, measured twice": found.rerun,
    }
    named = [
        *((ALARM, how, rate) for how, rate in tried.items() if rate),
        *((UNSAFE, f"{r.what}, a drop of it", r) for r in found.unsafe),
    ]
    rows = [
        _row((call, place, here["machine_key"], run), instrument, plant, (rate, seconds, now))
        for place, (instrument, plant, rate) in enumerate(named)
    ]
    for row in rows:
        store.add_calibration(row)
    return rows


def _row(
    place: tuple[str, int, str, str], instrument: str, plant: str, what: tuple[Rate, float, datetime]
) -> CalibrationRow:
    (call, position, machine, run), (rate, seconds, now) = place, what
    low, high = rate.interval
    return CalibrationRow(
        calibration_id=call,
        position=position,
        machine_key=machine,
        suite=GATE,
        instrument=instrument,
        plant=f"{plant}, {rate.draws} replays",
        target=f"≤ {ALPHA:g}, surely not more",
        unit="1",
        planted=ALPHA,
        recovered=rate.value,
        low=low,
        high=high,
        passed=low <= ALPHA,
        reason=None,
        code=run,
        seconds=seconds,
        tried_at=now,
    )


SAME_DATA = """
    with tried as (select distinct code as run_id from calibrations where suite = $gate),
    measured as (
        select run_id, label, 0 as build, suite, evaluation_id from cells
        union all select run_id, label, build, suite, evaluation_id from builds
    ),
    grids as (
        select run_id, list((label, build, suite, evaluation_id) order by label, build, suite) as grid
        from measured where run_id = $run or run_id in (from tried) group by run_id
    )
    select tried.run_id from tried
    join runs on runs.run_id = tried.run_id join runs as ours on ours.run_id = $run
    left join grids on grids.run_id = tried.run_id left join grids as our on our.run_id = $run
    where tried.run_id = $run
       or (grids.grid = our.grid and (runs.spec->'gate') is not distinct from (ours.spec->'gate'))
"""
"""Runs that the gate was replayed on and that hold the very evaluations of a run, under the same rules: a second run in
which nothing was left to measure is known as well as the first."""


def in_words(store: Store, run: str) -> str:
    """What is known of the gate's error rates on the data of a run, in one sentence."""
    rows = store.rows(
        f"""select * from calibrations where suite = $gate and code in ({SAME_DATA})
            qualify rank() over (order by tried_at desc, calibration_id) = 1 order by position""",
        {"gate": GATE, "run": run},
    )
    if not rows:
        return "gate: its error rates were not measured on this run's data: `weighin calibrate gate`"
    alarms, unsafe = ([row for row in rows if row["instrument"] == kind] for kind in (ALARM, UNSAFE))
    said = f"gate: on this run's data false alarms at most {_most(alarms)}"
    return said + (f", unsafe passes at most {_most(unsafe)}" if unsafe else "")


def _most(rows: list[dict[str, Any]]) -> str:
    return _share(max(rows, key=lambda row: row["recovered"]))


def _share(row: dict[str, Any]) -> str:
    value, low, high = (100 * row[name] for name in ("recovered", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
