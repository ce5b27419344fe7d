"""Energy of a piece of work in this process, J, by codecarbon's offline tracker.

The source is `counter` where the processor's or the accelerator's energy counters were read, and `modelled` where
codecarbon derives power from a table and the process's own load: its documentation puts that between 60 % below and
190 % above a counter. With a counter the memory's share, which codecarbon always models, is left out. Gross energy:
idle power is not subtracted.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from weighin.results.records import Source

Result = TypeVar("Result")
JOULES_PER_KWH = 3.6e6
CPU_COUNTERS = {"intel_rapl", "intel_power_gadget", "windows_emi"}


@dataclass(frozen=True)
class Energy:
    """Joules of a window, those of each part (cpu, gpu, ram), which parts are counted, and the window's seconds."""

    joules: float
    source: Source
    by_part: Mapping[str, float]
    parts: tuple[str, ...]
    seconds: float


class Meter:
    """Needs codecarbon. Hardware is detected when it is made, which takes seconds the first time in a process."""

    def __init__(self, country: str = "DEU") -> None:
        from codecarbon import OfflineEmissionsTracker

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
        """Do a piece of work: what it returns, and the energy it took. An error of the work passes through."""
        self._tasks += 1
        name = f"window-{self._tasks}"
        self._tracker.start_task(name)
        try:
            result = work()
        finally:
            data = self._tracker.stop_task(name)
        found = {part: float(getattr(data, f"{part}_energy")) * JOULES_PER_KWH for part in ("cpu", "gpu", "ram")}
        source, parts = self._parts()
        return result, Energy(sum(found[part] for part in parts), source, found, parts, float(data.duration))

    def _parts(self) -> tuple[Source, tuple[str, ...]]:
        """Whether counters are read, and the parts whose joules are summed accordingly."""
        hardware = self._tracker._hardware
        modes = {getattr(part, "_mode", None) for part in hardware}
        gpus = any(type(part).__name__ == "GPU" for part in hardware)
        if modes & CPU_COUNTERS:
            return "counter", ("cpu", "gpu") if gpus else ("cpu",)
        return "modelled", ("cpu", "gpu", "ram")
