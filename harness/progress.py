"""What a person sees while a run goes on: live lines with a time estimate on a terminal, plain lines in a pipe."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

MARKS = {"ok": "[green]✓[/]", "abstained": "[yellow]–[/]", "failed": "[red]✗[/]"}


@dataclass
class Estimate:
    """How long the jobs still to come will take: by what the same stage or suite took before, else by the mean."""

    pending: list[str]
    known: dict[str, float] = field(default_factory=dict)
    beside: Mapping[str, int] = field(default_factory=dict)
    """How many of a name go on at a time, where it is more than one."""
    done: int = 0

    def finish(self, name: str, seconds: float) -> None:
        """A job ended; its duration is the best guess for the next of its name."""
        if name in self.pending:
            self.pending.remove(name)
        self.known[name] = seconds
        self.done += 1

    def seconds(self) -> float | None:
        """Seconds left; None while nothing is known."""
        if not self.known:
            return None
        mean = sum(self.known.values()) / len(self.known)
        return sum(self.known.get(name, mean) / self.beside.get(name, 1) for name in self.pending)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


@dataclass
class Doing:
    """A job that goes on: what it is, how far a library's own bar has come, and since when, monotonic seconds."""

    what: str
    bar: str = ""
    began: float = field(default_factory=time.monotonic)


class Display:
    """Follows the jobs of a run, one in each thread. A terminal has live lines, anything else plain ones.

    `beside` tells how many of a name go on at a time, where it is more than one.
    """

    def __init__(
        self, console: Console, jobs: Iterable[str], costs: Mapping[str, float], beside: Mapping[str, int] | None = None
    ) -> None:
        self.console = console
        self.estimate = Estimate(list(jobs), dict(costs), beside or {})
        self.total = len(self.estimate.pending)
        self._doing: dict[int, Doing] = {}
        self._live: Live | None = None

    def __enter__(self) -> "Display":
        if self.console.is_terminal and self.total:
            self._live = Live(console=self.console, refresh_per_second=5, transient=True, get_renderable=self._lines)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def start(self, what: str) -> None:
        """A job begins in this thread."""
        self._doing[threading.get_ident()] = Doing(what)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """A library's own progress bar moved in this thread's job."""
        doing = self._doing[threading.get_ident()]
        share = f"{done}/{total}" if total else str(done)
        spent = time.monotonic() - doing.began
        left = f", {duration(spent * (total - done) / done)} left" if total and 0 < done < total else ""
        doing.bar = f"{what[:24]} {share}{left}".strip()

    def finish(self, name: str, status: str, seconds: float, note: str = "") -> None:
        """This thread's job ended: one line stays."""
        doing = self._doing.pop(threading.get_ident())
        self.estimate.finish(name, seconds)
        left = self.estimate.seconds()
        about = f"  ({duration(left)} left)" if left and not self._live else ""
        count = f"[{self.estimate.done}/{self.total}]"
        said = f"  {escape(note)}" if note else ""
        mark = MARKS.get(status, status) if self.console.is_terminal else status
        self.console.print(
            f"{escape(count)} {mark} {escape(doing.what)}  {duration(seconds)}{said}{about}",
            highlight=False,
            soft_wrap=True,
        )

    def _lines(self) -> Table:
        left, now = self.estimate.seconds(), time.monotonic()
        doing = list(self._doing.values())
        spent = sum(now - each.began for each in doing) / max(1, len(doing))
        about = f"about {duration(max(0.0, left - spent))} left" if left else ""
        grid = Table.grid(padding=(0, 2))
        for place, each in enumerate(doing or [Doing("")]):
            count, rest = (f"[bold]{self.estimate.done}/{self.total}[/]", f"[dim]{about}[/]") if not place else ("", "")
            grid.add_row(count, escape(each.what), f"[dim]{escape(each.bar)}[/]", rest)
        return grid
