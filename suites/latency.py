"""Latency of one request at a time: time to first token (TTFT), time per output token (TPOT), tokens per second.

Closed loop, batch 1, greedy, a prompt of fixed length, every request generates the same number of tokens. TTFT runs
from the call to the first token; TPOT is the time from the first to the last token over the tokens in between, as in
MLPerf Inference. Requests that come before the first `warmup` are over are not kept.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Metric, Model, Sample, suite
from weighin.suites._generate import arrivals, prompt_ids

TTFT = Metric("ttft", unit="s", better="lower", reduce="median", runtime=True)
TPOT = Metric("tpot", unit="s", better="lower", reduce="median", runtime=True)
THROUGHPUT = Metric("throughput", unit="token/s", better="higher", reduce="median", runtime=True)


@suite(
    TTFT,
    TPOT,
    THROUGHPUT,
    needs=("torch", "transformers"),
    example={"requests": 6, "prompt_tokens": 16, "new_tokens": 4},
)
def latency(
    model: Model,
    *,
    prompt_tokens: Annotated[int, Field(gt=0)] = 64,
    new_tokens: Annotated[int, Field(gt=1)] = 32,
    requests: Annotated[int, Field(gt=0)] = 12,
    warmup: Annotated[int, Field(ge=0)] = 3,
) -> Iterator[Sample]:
    """Yield three samples a request."""
    from tqdm import tqdm

    ids = prompt_ids(model, prompt_tokens)
    for number in tqdm(range(warmup + requests), desc="requests"):
        times = arrivals(model, ids, new_tokens)
        if number < warmup:
            continue
        item = f"request-{number - warmup:03d}"
        detail: dict[str, Any] = {"prompt_tokens": prompt_tokens, "new_tokens": len(times)}
        yield Sample(item, times[0], TTFT, detail=detail)
        if times[-1] > times[0]:
            yield Sample(item, (times[-1] - times[0]) / (len(times) - 1), TPOT)
        else:
            yield Sample(item, None, TPOT, reason="all tokens arrive at once")
        yield Sample(item, len(times) / times[-1], THROUGHPUT)
