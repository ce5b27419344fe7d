"""What carries out the work of a run: `engine_local`, in processes of this machine, and whatever else does the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from weighin.harness import worker
from weighin.results.errors import WeighinError

Runner = Callable[[worker.Job], worker.Outcome]
"""Runs one job in a process of its own and waits for it."""


@dataclass(frozen=True)
class Wants:
    """What a piece of work asks of a machine. `memory` in bytes; `near` are checkpoints that it reads, by key."""

    cpus: int = 1
    """Threads that it computes with, unless it is alone: then as many as there are."""
    memory: int = 0
    gpus: float = 0.0
    alone: bool = False
    """Nothing else may run on its machine meanwhile: its figures are times, bytes or joules."""
    near: tuple[str, ...] = ()

    @property
    def threads(self) -> int | None:
        """Threads that its processes compute with; None: as many as they would take by themselves."""
        return None if self.alone else self.cpus


@dataclass(frozen=True)
class Task:
    """A step of a run: `act` is called in the run's own process once all of `after` have been."""

    name: str
    act: Callable[[], None]
    after: tuple[str, ...] = field(default_factory=tuple)
    last: bool = False
    """It wants a machine for itself, and nothing stands on it: it may wait until all others are done."""


class Lost(WeighinError):
    """The machines that tried a piece of work were lost with it."""


class Engine(Protocol):
    """How work gets done. Tasks are steps of the run; what is heavy in them goes through `do`."""

    def each(self, tasks: Sequence[Task]) -> None:
        """Call every task once, none before those that it stands on; no two at the same moment."""
        ...

    def do(self, work: Callable[[Runner], Any], wants: Wants, progress: worker.Progress) -> Any:
        """What `work` returns, called where there is room for it. Raises `Lost`."""
        ...
