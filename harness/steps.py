"""Steps of a run that take turns: a thread each, one of which acts while others wait for work that is done elsewhere.

So a run is written as if it did one thing after the other, its store has one writer, and the order of what is kept is
one that doing everything in order could have come to.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from weighin.harness.engine import Task
from weighin.results.errors import WeighinError


class Stopped(Exception):
    """The run was stopped: what a step waited for is nobody's any more."""


class Steps:
    """The turn, and who waits for it."""

    def __init__(self) -> None:
        self.stopped = False
        self._turn = threading.Lock()
        self._mine = threading.local()
        self._going: dict[Future[None], str] = {}

    def each(self, tasks: Sequence[Task], width: int, stop: Callable[[], None]) -> None:
        """Call every task once all that it stands on have been, up to `width` under way at a time.

        The earlier ones are called first, and behind all others those that may wait.

        `stop` ends the work that is under way elsewhere, where a task raises or the run is interrupted; it is called
        until every step has ended. Raises what the task raised, and WeighinError for tasks that wait for each other.
        """
        self.stopped = False
        with ThreadPoolExecutor(width, thread_name_prefix="weighin-step") as pool:
            try:
                order = sorted(tasks, key=lambda task: task.last)
                self._follow({task.name: task for task in order}, width, pool)
            except BaseException:
                self.stopped = True
                stop()
                while wait(self._going, timeout=0.1).not_done:
                    stop()
                raise
            finally:
                self._going.clear()

    def _follow(self, open_: dict[str, Task], width: int, pool: ThreadPoolExecutor) -> None:
        names, done = set(open_), set[str]()
        while open_ or self._going:
            for name, task in list(open_.items()):
                if len(self._going) == width:
                    break
                if all(other in done or other not in names for other in task.after):
                    self._going[pool.submit(self._step, task)] = name
                    del open_[name]
            if not self._going:
                raise WeighinError(f"steps wait for each other: {', '.join(sorted(open_)[:3])}")
            ended, _ = wait(self._going, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
                done.add(self._going.pop(future))

    def _step(self, task: Task) -> None:
        with self.turn():
            task.act()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block it is this thread's turn. Raises Stopped where the run was, while it waited."""
        with self._turn:
            if self.stopped:
                raise Stopped
            self._mine.held = True
            try:
                yield
            finally:
                self._mine.held = False

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within the block others may take their turn, if it was this thread's. Raises Stopped where the run was."""
        if not getattr(self._mine, "held", False):
            yield
            return
        self._mine.held = False
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()
            self._mine.held = True
        if self.stopped:
            raise Stopped
