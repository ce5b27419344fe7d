"""`weighin calibrate`: every instrument tried on planted truth on this machine, and the verdicts kept in the store."""

import os
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from weighin.harness import checkpoints, keys, machine, registry
from weighin.harness.plant import Plant, Recovered, Target
from weighin.harness.progress import Display
from weighin.harness.report import table
from weighin.results.errors import WeighinError
from weighin.results.render import interval
from weighin.results.rows import CalibrationRow
from weighin.results.store import Store


def planted(suite: str) -> tuple[Path, list[Plant]]:
    """The file that holds a suite's plants, and the plants in the order of the file; none where there is no file."""
    entry = registry.entry("suite", suite)
    file = entry.file.with_name(f"_planted_{entry.file.stem}.py")
    if not file.is_file():
        return file, []
    package = entry.module.rpartition(".")[0]
    module = import_module(f"{package}.{file.stem}" if package else file.stem)
    return file, [value for value in vars(module).values() if isinstance(value, Plant)]


def code(suite: str) -> str:
    """Hash of what decides a calibration's outcome: the suite's code, its helpers' and its plants'."""
    entry = registry.entry("suite", suite)
    file = entry.file.with_name(f"_planted_{entry.file.stem}.py")
    return keys.digest([keys.code_digest(path) for path in (entry.file, file) if path.is_file()])


def calibrate(console: Console, store: Store, suites: Sequence[str] = (), *, slow: bool = True) -> list[CalibrationRow]:
    """Try the plants of `suites` (default: all) one after the other; each verdict is kept as soon as it is known.

    Raises WeighinError for a suite that does not exist or has no plants.
    """
    chosen = [(suite, plant) for suite in suites or registry.entries("suite") for plant in _wanted(suite, slow, suites)]
    call, here, found = uuid.uuid4().hex, machine.machine_key(), list[CalibrationRow]()
    codes = {suite: code(suite) for suite, _ in chosen}
    store.add_machine(machine.row())
    log = checkpoints.home() / "logs" / f"calibrate-{call[:8]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with Display(console, [f"{suite} {plant.name}" for suite, plant in chosen], {}) as display:
        for suite, plant in chosen:
            display.start(f"{suite} · {plant.name.replace('_', ' ')}")
            began = time.monotonic()
            with _aside(log):
                recovered = list(_tried(plant))
            seconds = time.monotonic() - began
            places = [(call, len(found) + place, here, suite) for place in range(len(recovered))]
            rows = [_row(each, at, codes[suite], seconds) for each, at in zip(recovered, places, strict=True)]
            for row in rows:
                store.add_calibration(row)
            found += rows
            failed = sum(not row.passed for row in rows)
            note = f"{failed} of {len(rows)} failed" if failed else ""
            display.finish(f"{suite} {plant.name}", "failed" if failed else "ok", seconds, note)
    return found


def _wanted(suite: str, slow: bool, named: Sequence[str]) -> list[Plant]:
    _, plants = planted(suite)
    if not plants and named:
        raise WeighinError(f"{suite}: nothing is planted for this suite")
    return [plant for plant in plants if slow or not plant.slow]


@contextmanager
def _aside(log: Path) -> Iterator[None]:
    """Within the block, what libraries write to the standard error goes to a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _tried(plant: Plant) -> Iterator[Recovered]:
    absent = registry.missing(plant.needs)
    target = Target("=", 0)
    try:
        if absent:
            raise WeighinError(f"needs {', '.join(absent)}: {registry.install_command(absent)}")
        yield from plant()
    except WeighinError as error:
        yield Recovered(plant.name.replace("_", " "), "", None, target, reason=str(error))
    except Exception as error:  # an instrument that breaks has failed, and the others are still tried
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        yield Recovered(plant.name.replace("_", " "), "", None, target, reason=reason)


def _row(found: Recovered, place: tuple[str, int, str, str], code: str, seconds: float) -> CalibrationRow:
    call, position, here, suite = place
    return CalibrationRow(
        calibration_id=call,
        position=position,
        machine_key=here,
        suite=suite,
        instrument=found.instrument,
        plant=found.plant,
        target=str(found.target),
        unit=found.unit,
        planted=found.planted,
        recovered=found.value,
        low=found.low,
        high=found.high,
        passed=found.passed,
        reason=found.reason,
        code=code,
        seconds=seconds,
        tried_at=datetime.now(UTC),
    )


def show(console: Console, rows: Sequence[CalibrationRow]) -> None:
    """Instrument, planted value, recovered value with its interval, target and verdict, by suite."""
    for suite in dict.fromkeys(row.suite for row in rows):
        console.print(f"\n[bold]{escape(suite)}[/]")
        made = table("instrument", "planted", "recovered", "target", "")
        for row in (row for row in rows if row.suite == suite):
            value = interval(row.recovered, row.low, row.high, row.unit) if row.recovered is not None else row.reason
            verdict = "[green]pass[/]" if row.passed else "[red]FAIL[/]"
            made.add_row(*(escape(text or "") for text in (row.instrument, row.plant, value, row.target)), verdict)
        console.print(made)
    failed = sum(not row.passed for row in rows)
    said = f"[red]{failed} of {len(rows)} instruments failed[/]" if failed else f"all {len(rows)} instruments pass"
    console.print(f"\n{said}")
