"""Energy of generation, J/token, over windows of generation, by codecarbon's offline tracker.

The source is `counter` where energy counters were read, else `modelled`: such a figure is shown as such and enters no
front and no gate (harness/meter.py says how far off it may be). Gross energy: idle power is not subtracted.
"""

import time
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.meter import Meter
from weighin.suites._generate import arrivals, prompt_ids

PER_TOKEN = Metric("per_token", unit="J/token", better="lower", runtime=True)


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
    from tqdm import tqdm

    ids = prompt_ids(model, prompt_tokens)
    meter = Meter(country)
    _generate(model, ids, new_tokens, 0.0)
    for number in tqdm(range(windows), desc="windows"):
        tokens, energy = meter.measure(lambda: _generate(model, ids, new_tokens, seconds))
        if energy.joules <= 0:
            raise Abstain(
                f"codecarbon counted no energy in a window of {energy.seconds:.1f} s (parts: {', '.join(energy.parts)})"
            )
        detail = {
            "joules": energy.by_part,
            "tokens": tokens,
            "seconds": energy.seconds,
            "parts": list(energy.parts),
        }
        yield Sample(f"window-{number}", energy.joules / tokens, source=energy.source, detail=detail)


def _generate(model: Model, ids: list[int], new_tokens: int, seconds: float) -> int:
    """Generate at least once and until `seconds` are over; the number of tokens made."""
    began, tokens = time.perf_counter(), 0
    while not tokens or time.perf_counter() - began < seconds:
        tokens += len(arrivals(model, ids, new_tokens))
    return tokens
