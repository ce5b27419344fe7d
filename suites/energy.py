"""Energy of generation: J/token and J/request over windows of generation, gross and less what the idle machine takes.

The source is `counter` where energy counters were read, else `modelled`: such a figure is shown as such and enters no
front and no gate (harness/meter.py says how far off it may be). Idle power is measured before and after the windows;
a net figure may come out negative, and is shown so: the machine was busier when it was to be idle.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, WeighinError, suite
from weighin.harness.counters import POWERCAP
from weighin.harness.meter import Energy, Meter
from weighin.suites._generate import arrivals, prompt_ids

PER_TOKEN = Metric("per_token", unit="J/token", better="lower", runtime=True)
PER_REQUEST = Metric("per_request", unit="J/request", better="lower", runtime=True)
NET = Metric("net_per_token", unit="J/token", better="lower", runtime=True)
IDLE = Metric("idle_power", unit="W", better="none", runtime=True)


@suite(
    PER_TOKEN,
    PER_REQUEST,
    NET,
    IDLE,
    needs=("codecarbon", "torch", "transformers"),
    example={"windows": 2, "seconds": 0.05, "idle_seconds": 0.05, "prompt_tokens": 16, "new_tokens": 4},
)
def energy(
    model: Model,
    *,
    windows: Annotated[int, Field(gt=1)] = 5,
    seconds: Annotated[float, Field(gt=0)] = 0.5,
    idle_seconds: Annotated[float, Field(gt=0)] = 1.0,
    prompt_tokens: Annotated[int, Field(gt=0)] = 64,
    new_tokens: Annotated[int, Field(gt=1)] = 32,
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "DEU",
) -> Iterator[Sample]:
    """Yield the samples of each window of at least `seconds`. `country` only matters for carbon, which is not kept."""
    ids = prompt_ids(model, prompt_tokens)
    _generate(model, ids, new_tokens, 0.0)

    def work() -> tuple[int, int]:
        return _generate(model, ids, new_tokens, seconds)

    yield from weigh(work, windows, idle_seconds, country)


def weigh(
    work: Callable[[], tuple[int, int]],
    windows: int,
    idle_seconds: float,
    country: str = "DEU",
    powercap: Path = POWERCAP,
) -> Iterator[Sample]:
    """The samples of so many windows of `work`, which returns how many tokens and requests it did."""
    from tqdm import tqdm

    try:
        meter = Meter(country, powercap)
        idle = [_idle(meter, idle_seconds)]
        found = [meter.measure(work) for _ in tqdm(range(windows), desc="windows")]
        idle.append(_idle(meter, idle_seconds))
    except WeighinError as error:
        raise Abstain(str(error)) from None
    power = sum(each.joules for each in idle) / sum(each.seconds for each in idle)
    for number, each in enumerate(idle):
        yield Sample("after" if number else "before", each.joules / each.seconds, IDLE, source=each.source)
    for number, ((tokens, requests), each) in enumerate(found):
        if each.joules <= 0:
            raise Abstain(f"no energy was counted in a window of {each.seconds:.1f} s (parts: {', '.join(each.parts)})")
        detail = {"joules": each.by_part, "tokens": tokens, "seconds": each.seconds, "parts": list(each.parts)}
        net = each.joules - power * each.seconds
        item, source = f"window-{number}", each.source
        yield Sample(item, each.joules / tokens, PER_TOKEN, source=source, detail=detail)
        yield Sample(item, each.joules / requests, PER_REQUEST, source=source)
        yield Sample(item, net / tokens, NET, source=source, detail={"idle_w": power})


def _idle(meter: Meter, seconds: float) -> Energy:
    return meter.measure(lambda: time.sleep(seconds))[1]


def _generate(model: Model, ids: list[int], new_tokens: int, seconds: float) -> tuple[int, int]:
    """Generate at least once and until `seconds` are over; the tokens made, and the requests."""
    began, tokens, requests = time.perf_counter(), 0, 0
    while not requests or time.perf_counter() - began < seconds:
        tokens += len(arrivals(model, ids, new_tokens))
        requests += 1
    return tokens, requests
