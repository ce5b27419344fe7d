"""The verb `nightly`: run, gate against the last green run, watch every series, report. Made for cron.

One at a time a store: an operating system's lock that dies with its process. A time limit that ends the run and keeps
what was measured. An exit code, and never a question. Everything is measured anew, as a value that is taken from the
store says nothing of tonight; checkpoints are not made anew.
"""

import argparse
import dataclasses
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from weighin.harness import checkpoints, report
from weighin.harness.gating import keep_waivers
from weighin.harness.spec import Spec, read_spec
from weighin.results import ledger
from weighin.results.address import Address, Place
from weighin.results.errors import WeighinError
from weighin.results.fingerprint import classmates
from weighin.results.night import Night, judge_night
from weighin.results.night_files import NOTHING, STATES, against, alarms, night_markdown
from weighin.results.store import Store
from weighin.results.unfinished import cut_short

if TYPE_CHECKING:
    from weighin.harness.run import Run

SAVED = 4
"""The exit code where another night holds the lock: nothing was measured."""


class Held(WeighinError):
    """Another night is at work on the store."""


class TimeUp(BaseException):
    """The time limit; no handler of ordinary errors may take it for one."""


@dataclasses.dataclass(frozen=True)
class Deadline:
    """When the night ends, on the monotonic clock, s; None: never. `limit` is what was asked for."""

    limit: float | None
    at: float | None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Raise `TimeUp` in the block once the time is up, even while a worker is waited for."""
        if self.at is None:
            yield
            return

        def ring(_: int, __: FrameType | None) -> None:
            raise TimeUp

        former = signal.signal(signal.SIGALRM, ring)
        pending, _ = signal.setitimer(signal.ITIMER_REAL, max(self.at - time.monotonic(), 1e-3))
        try:
            yield
        finally:
            signal.signal(signal.SIGALRM, former)
            signal.setitimer(signal.ITIMER_REAL, pending)  # whoever had one set; 0 sets none


@contextmanager
def alone(store: Place, what: str) -> Iterator[None]:
    """Hold the store's lock for nights. Raises Held, saying who has it; the lock of a killed process is free.

    Of a store behind a server it is this machine's: other machines have nights of their own.
    """
    if isinstance(store, Address):
        checkpoints.home().mkdir(parents=True, exist_ok=True)
        place = checkpoints.home() / f"{store}.nightly"
    else:
        place = store.with_name(store.name + ".nightly")
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WeighinError(f"{place}: the lock cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = file.read(500).strip() or "somebody who has not said who"
            raise Held(f"{store}: a night is at work here already: {holder}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, {what}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        file.flush()
        yield


def nightly(args: argparse.Namespace) -> int:
    """0 green, 1 an alarm, 3 inconclusive, 4 not everything was measured (or another night is at work)."""
    spec, store, console = _last_look(read_spec(args.spec)), Store(args.store), Console()
    if args.timeout is not None and not 0 < args.timeout < 1e7:
        raise WeighinError(f"--timeout {args.timeout:g}: give seconds, more than 0 and less than 10 million")
    deadline = Deadline(args.timeout, None if args.timeout is None else time.monotonic() + args.timeout)
    try:
        with alone(store.path, f"spec {spec.name}"):
            return _night(console, store, spec, deadline, args.out)
    except Held as held:
        print(f"weighin: {held}", file=sys.stderr)
        return SAVED


def _last_look(spec: Spec) -> Spec:
    """A spec that looks at growing numbers of items, at its last look: a night looks once."""
    from weighin.harness.looks import looks

    return dataclasses.replace(looks(spec)[-1], looks=())


def _night(console: Console, store: Store, spec: Spec, deadline: Deadline, out: str | None) -> int:
    run, cut = _measure(console, store, spec, deadline)
    if run is None:
        console.print(escape(f"{cut}: nothing was measured"), highlight=False)
        return SAVED

    def again(label: str, suite: str) -> str | None:
        cell = next(cell for cell in run.plan.cells if (cell.label, cell.suite) == (label, suite))
        if cut is not None:
            return None
        console.print(escape(f"An alarm of {label}, {suite}: measuring it once more."), highlight=False)
        try:
            with deadline.kept():
                evaluation, why = run.beside(cell)
                return None if why else evaluation
        except TimeUp:
            return None

    night = judge_night(store, spec.gate, run.run_id, _green(store, spec, run), again, cut=cut)
    ledger.keep(store, night.run, night.verdicts, against=night.against, watched=night.kept())
    keep_waivers(store, night.verdicts)
    _show(console, night)
    place = _written(out, night.run, night_markdown(store, night))
    console.print(f"\nThe report is in {escape(place)}", highlight=False, soft_wrap=True)
    return night.code


def _green(store: Store, spec: Spec, run: "Run") -> str | None:
    """The last green run of the spec on this class of machine, older than this night; None where there is none."""
    with suppress(WeighinError):
        return ledger.last_green(store, spec.name, classmates(store, run.here), run.run_id)
    return None


def _measure(console: Console, store: Store, spec: Spec, deadline: Deadline) -> tuple["Run | None", str | None]:
    """The run, None where the time was up before it began, and why it was cut short, None where it was not."""
    from weighin.harness import rooms, worker
    from weighin.harness.plan import job_names, make_plan
    from weighin.harness.progress import Display
    from weighin.harness.run import Run

    run: Run | None = None
    try:
        with deadline.kept():
            plan = make_plan(spec, store, again=list(spec.suites))
            assert plan is not None, "a plan that may download always has its base"
            jobs = job_names(plan)
            worker.warm_up(plan.needs())
            with Display(console, jobs, store.costs(), rooms.beside(spec.suites)) as display:
                run = Run(plan, store, display)
                run.begin()
                run.engine.each(run.tasks())
                run.end()
    except TimeUp:
        cut = f"the time limit of {deadline.limit:g} s"
        if run is None or not store.exists() or not store.rows("select 1 from runs where run_id = ?", [run.run_id]):
            return None, cut
        cut_short(store, run.run_id, cut)
        return run, cut
    return run, None


def _show(console: Console, night: Night) -> None:
    console.print(f"\n[bold]{escape(STATES[night.code])}[/]: run {escape(night.run)}, {escape(against(night))}.")
    if night.verdicts:
        report.verdicts(console, night.verdicts)
    for variant, metric, why, changes in alarms(night):
        console.print(f"[red]alarm[/] {escape(f'{variant} · {metric}: {why}')}", highlight=False)
        for told in [str(change) for change in changes] or [NOTHING]:
            console.print(f"  changed: {escape(told)}", highlight=False)
    for each in night.watched:
        if each.outcome == "inconclusive":
            console.print(f"[yellow]?[/] {escape(f'{each.variant} · {each.name}: {each.why}')}", highlight=False)
    kinds = {kind: sum(each.kind == kind for each in night.watched) for kind in ("exact", "series", "shown")}
    console.print(
        f"{kinds['exact']} scores compared item by item, {kinds['series']} series watched, "
        f"{kinds['shown']} shown only (not interleaved).",
        highlight=False,
    )


def _written(out: str | None, run: str, text: str) -> str:
    place = Path(out).expanduser() if out else checkpoints.home() / "nights" / f"{run}.md"
    try:
        if not out:
            place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeighinError(f"{place}: the report cannot be written: {error.strerror}") from None
    return str(place)
