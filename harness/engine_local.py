"""Work in processes of this machine, one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

from weighin.harness import worker
from weighin.harness.engine import Runner, Task, Wants


class Local:
    """Everything here, in the order given: whatever is measured has the machine for itself."""

    def each(self, tasks: Sequence[Task]) -> None:
        """Call every task in order."""
        for task in tasks:
            task.act()

    def do(self, work: Callable[[Runner], Any], wants: Wants, progress: worker.Progress) -> Any:
        """What `work` returns."""
        return work(lambda job: worker.run(job, progress))
