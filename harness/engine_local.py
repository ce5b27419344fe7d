"""Work in processes of this machine: side by side where there is room, and alone what measures times, bytes or joules.

What runs side by side has its share of the processors (`rooms`), so that all of them are busy: a small model gains
nothing from a second thread, and while one job loads, or its results are kept, another computes.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from weighin.harness import rooms, worker
from weighin.harness.engine import Runner, Task, Wants
from weighin.harness.steps import Steps, Stopped


class Local:
    """Everything here, about in the order given; what wants the machine for itself comes last."""

    def __init__(self) -> None:
        self._steps = Steps()
        self._room = Room()

    def each(self, tasks: Sequence[Task]) -> None:
        """Call every task once all that it stands on have been."""
        self._steps.each(tasks, rooms.width(), worker.stop)

    def do(self, work: Callable[[Runner], Any], wants: Wants, progress: worker.Progress) -> Any:
        """What `work` returns, when there is room for it; while it wants to be alone no other step acts either."""

        def run(job: worker.Job) -> worker.Outcome:
            if self._steps.stopped:
                raise Stopped
            return worker.run(replace(job, threads=wants.threads), progress)

        with self._steps.away(), self._room.taken(wants):
            if not wants.alone:
                return work(run)
            with self._steps.turn():
                return work(run)


class Room:
    """This machine's processors, memory and accelerators, and what is taken of them. First come, first served."""

    def __init__(self) -> None:
        self._taken: list[Wants] = []
        self._waiting: deque[Wants] = deque()
        self._change = threading.Condition()

    @contextmanager
    def taken(self, wants: Wants) -> Iterator[None]:
        """Take room for a block, as soon as there is some and nobody was here before."""
        with self._change:
            self._waiting.append(wants)
            self._change.wait_for(lambda: self._waiting[0] is wants and self._fits(wants))
            self._waiting.popleft()
            self._taken.append(wants)
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._taken.remove(wants)
                self._change.notify_all()

    def _fits(self, wants: Wants) -> bool:
        """Whether it fits beside what runs; alone everything does, for what is asked for is an estimate."""
        beside = [*self._taken, wants]
        if not self._taken:
            return True
        return not any(each.alone for each in beside) and all(
            sum(asked) <= most
            for asked, most in (
                ([each.cpus for each in beside], rooms.processors()),
                ([each.memory for each in beside], rooms.memory()),
                ([each.gpus for each in beside], rooms.accelerators()),
            )
        )
