"""Energy of generation, J/token, by codecarbon's offline tracker over windows of generation.

The source is `counter` where the processor's or the accelerator's energy counters were read, and `modelled` where
codecarbon derives power from a table and the processor's load: its own documentation puts that between 60 % below and
190 % above a counter. A modelled figure is shown as such and enters no front and no gate. Gross energy: idle power is
not subtracted. With a counter the memory's share, which codecarbon always models, is left out of the value.
"""

import time
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, Source, suite
from weighin.suites._generate import arrivals, prompt_ids

PER_TOKEN = Metric("per_token", unit="J/token", better="lower", runtime=True)
JOULES_PER_KWH = 3.6e6
CPU_COUNTERS = {"intel_rapl", "intel_power_gadget", "windows_emi"}


@suite(
    PER_TOKEN,
    needs=("codecarbon", "torch", "transformers"),
    example={"windows": 2, "seconds": 0.05, "prompt_tokens": 16, "new_tokens": 4},
)
def energy(
    model: Model,
    *,
    windows: Annotated[int, Field(gt=1)] = 5,
    seconds: Annotated[float, Field(gt=0)] = 0.5,
    prompt_tokens: Annotated[int, Field(gt=0)] = 64,
    new_tokens: Annotated[int, Field(gt=1)] = 32,
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "DEU",
) -> Iterator[Sample]:
    """Yield one sample a window of at least `seconds`. `country` only matters for carbon, which is not kept."""
    import logging

    from codecarbon import OfflineEmissionsTracker
    from tqdm import tqdm

    ids = prompt_ids(model, prompt_tokens)
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        save_to_file=False,
        log_level="critical",
        tracking_mode="process",
        measure_power_secs=0.5,
    )
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker.start_task("warm-up")  # hardware is detected at the first task, which takes seconds
    _generate(model, ids, new_tokens, 0.0)
    tracker.stop_task("warm-up")
    source, parts = _source(tracker)
    for number in tqdm(range(windows), desc="windows"):
        tracker.start_task(f"window-{number}")
        tokens = _generate(model, ids, new_tokens, seconds)
        data = tracker.stop_task(f"window-{number}")
        joules = {name: getattr(data, f"{name}_energy") * JOULES_PER_KWH for name in ("cpu", "gpu", "ram")}
        counted = sum(joules[name] for name in parts)
        if counted <= 0:
            raise Abstain(
                f"codecarbon counted no energy in a window of {data.duration:.1f} s (parts: {', '.join(parts)})"
            )
        detail: dict[str, Any] = {"joules": joules, "tokens": tokens, "seconds": data.duration, "parts": parts}
        yield Sample(f"window-{number}", counted / tokens, source=source, detail=detail)


def _generate(model: Model, ids: list[int], new_tokens: int, seconds: float) -> int:
    """Generate at least once and until `seconds` are over; the number of tokens made."""
    began, tokens = time.perf_counter(), 0
    while not tokens or time.perf_counter() - began < seconds:
        tokens += len(arrivals(model, ids, new_tokens))
    return tokens


def _source(tracker: Any) -> tuple[Source, list[str]]:
    """Whether the tracker reads counters, and the parts whose joules are summed accordingly."""
    modes = {getattr(part, "_mode", None) for part in tracker._hardware}
    gpus = any(type(part).__name__ == "GPU" for part in tracker._hardware)
    if modes & CPU_COUNTERS:
        return "counter", ["cpu", "gpu"] if gpus else ["cpu"]
    return "modelled", ["cpu", "gpu", "ram"]
