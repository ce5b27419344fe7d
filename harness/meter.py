"""Energy of a piece of work in this process, J.

`counter`: the processor's own counters (RAPL) where the machine shows them, and the accelerator's as codecarbon reads
them. They count all that the machine does meanwhile. `modelled`: codecarbon derives power from a table and the
process's own load; its documentation puts that between 60 % below and 190 % above a counter.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from weighin.harness import counters
from weighin.results.records import Source

Result = TypeVar("Result")
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """Joules of a window, those of each part (package or cpu, gpu, ram), and the window's seconds.

    `parts` are those that the joules are the sum of.
    """

    joules: float
    source: Source
    by_part: Mapping[str, float]
    parts: tuple[str, ...]
    seconds: float


class Meter:
    """Needs codecarbon. Hardware is detected when it is made, which takes seconds the first time in a process."""

    def __init__(self, country: str = "DEU", powercap: Path = counters.POWERCAP) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._counters = counters.find(powercap)
        # The country only matters for carbon, which is not kept.
        self._tracker: Any = OfflineEmissionsTracker(
            country_iso_code=country,
            save_to_file=False,
            log_level="critical",
            tracking_mode="process",
            measure_power_secs=0.5,
        )
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._tasks = 0
        self.measure(lambda: None)

    def measure(self, work: Callable[[], Result]) -> tuple[Result, Energy]:
        """Do a piece of work: what it returns, and the energy it took. An error of the work passes through.

        Raises WeighinError when a counter that was there can no longer be read.
        """
        self._tasks += 1
        name = f"window-{self._tasks}"
        before = self._counters.read() if self._counters else {}
        began = time.perf_counter()
        self._tracker.start_task(name)
        try:
            result = work()
        finally:
            data = self._tracker.stop_task(name)
        seconds = time.perf_counter() - began
        found = {part: float(getattr(data, f"{part}_energy")) * JOULES_PER_KWH for part in ("cpu", "gpu", "ram")}
        source: Source = "modelled"
        parts: tuple[str, ...] = ("cpu", "gpu", "ram")
        if self._counters:
            found["package"] = self._counters.joules(before, self._counters.read())
            source, parts = "counter", ("package", "gpu") if self._accelerated() else ("package",)
        return result, Energy(sum(found[part] for part in parts), source, found, parts, seconds)

    def _accelerated(self) -> bool:
        return any(type(part).__name__ == "GPU" for part in self._tracker._hardware)
