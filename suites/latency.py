"""Latency: time to first token (TTFT), time per output token (TPOT), inter-token and end-to-end latency, throughput.

Three scenarios, named after MLPerf Inference. `single`: one request after the other, batch 1. `offline`: a batch of
requests at once. `server`: requests arrive as a Poisson process and are timed from their scheduled start. Prompts are
of fixed length and every request makes the same number of tokens. A variant is also timed against its parent in the
same process, in random order: figures of two variants that were taken one after the other say more about the machine.

TTFT: call (server: scheduled start) to first token. TPOT: (last - first token) / (tokens - 1), a request. ITL: the
gaps between tokens, all requests together (assisted generation brings several tokens at once: gaps of 0). E2E: call to
last token. Throughput: output tokens a second; prompts do not count. Each sample keeps its formula.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from weighin.harness import Metric, Model, Sample, suite
from weighin.suites._arrivals import schedule, serve
from weighin.suites._generate import arrivals, batch_seconds, prompt_ids
from weighin.suites._interleave import interleaved
from weighin.suites._quantiles import clustered_quantile, needed, quantile, quantile_interval, warm
from weighin.suites._streams import Streams, prompt_text

Request = Callable[[], list[float]]
"""Makes one request: seconds from its call at which each token arrived."""
Scenario = Literal["single", "offline", "server"]
SECONDS: dict[str, Any] = {"unit": "s", "better": "lower", "reduce": "median", "runtime": True}
TTFT, TPOT, ITL, E2E = (Metric(name, **SECONDS) for name in ("ttft", "tpot", "itl", "e2e"))
THROUGHPUT = Metric("throughput", unit="token/s", better="higher", reduce="median", runtime=True)
OFFLINE = Metric("offline_throughput", unit="token/s", better="higher", reduce="median", runtime=True)
REQUESTS = Metric("offline_requests", unit="request/s", better="higher", reduce="median", runtime=True)
SERVER_TTFT, SERVER_E2E = (Metric(f"server_{name}", **SECONDS) for name in ("ttft", "e2e"))
TAILS = (0.9, 0.99)
QUEUE = 10
"""Requests that come one after the other and are drawn together: those behind one that is late are late, too."""
RATIOS = {
    kind: Metric(
        f"{kind}_ratio_parent", unit="1", better="lower", reduce="median", runtime=True, beside="parent", neutral=1.0
    )
    for kind in ("wall", "cpu")
}
FORMULAE = {
    "ttft": "t(first token) - t(call)",
    "tpot": "(t(last token) - t(first token)) / (tokens - 1)",
    "itl": "t(token j+1) - t(token j), median of a request",
    "e2e": "t(last token) - t(call)",
    "throughput": "tokens / (t(last token) - t(call))",
}


class _Length(NamedTuple):
    """Tokens of a request."""

    prompt: int
    new: int


@suite(
    TTFT,
    TPOT,
    ITL,
    E2E,
    THROUGHPUT,
    needs=("torch", "transformers", "scipy"),
    example={"requests": 6, "prompt_tokens": 16, "new_tokens": 4, "blocks": 2, "rounds": 1, "batch": 2},
)
def latency(
    model: Model,
    *,
    scenarios: list[Scenario] = ["single"],  # noqa: B006  (a schema's default, never changed)
    prompt_tokens: Annotated[int, Field(gt=0)] = 64,
    new_tokens: Annotated[int, Field(gt=1)] = 32,
    requests: Annotated[int, Field(gt=0)] = 20,
    batch: Annotated[int, Field(gt=0)] = 8,
    load: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    rate: Annotated[float, Field(gt=0)] | None = None,
    against_parent: bool = True,
    blocks: Annotated[int, Field(gt=0)] = 10,
    rounds: Annotated[int, Field(gt=0)] = 2,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield the samples of each scenario, and of the blocks against the parent.

    The warm-up is found (MSER-5) and left out, and noted where nothing settles. `rate` is that of the server's
    arrivals, requests a second; without it, `load` is the share of time that single requests would keep it busy.
    """
    length = _Length(prompt_tokens, new_tokens)
    if model.endpoint:
        yield from _streamed(model, length, scenarios, (requests, batch, rate, load, seed))
        return
    ids = prompt_ids(model, prompt_tokens)
    times, left_out = _single(lambda: arrivals(model, ids, new_tokens), requests)
    if "single" in scenarios:
        yield from _of_requests(times, length, left_out)
    if "offline" in scenarios:
        yield from _offline(
            lambda: (batch_seconds(model, [ids] * batch, length.new), batch * length.new), length, batch
        )
    if "server" in scenarios:
        busy = sum(each[-1] for each in times) / len(times)
        yield from _server(lambda: arrivals(model, ids, new_tokens), schedule(rate or load / busy, requests, seed))
    if against_parent:
        yield from _beside_parent(model, ids, new_tokens, (blocks, rounds, seed))


def _streamed(model: Model, length: _Length, scenarios: list[Scenario], how: tuple[Any, ...]) -> Iterator[Sample]:
    """The scenarios by the streams of a server."""
    requests, batch, rate, load, seed = how
    streams, prompt = Streams(model), prompt_text(model, length.prompt)
    times, left_out = _single(lambda: streams.arrivals(prompt, length.new), requests)
    if "single" in scenarios:
        yield from _of_requests(times, length, {**left_out, **streams.said()}, whole=not streams.together)
    if "offline" in scenarios:
        yield from _offline(lambda: streams.batch([prompt] * batch, length.new), length, batch)
    if "server" in scenarios:
        busy = sum(each[-1] for each in times) / len(times)
        arriving = schedule(rate or load / busy, requests, seed)
        yield from _server(lambda: streams.arrivals(prompt, length.new), arriving)
    for metric in RATIOS.values():
        yield Sample("all", None, metric, reason="a server is another process: nothing is timed beside it")


def _single(request: Request, requests: int) -> tuple[list[list[float]], dict[str, Any]]:
    """Arrival times of the tokens of each request after the warm-up, and what is to be said of the warm-up."""
    from tqdm import tqdm

    first = [request() for _ in range(2)]  # the very first calls build caches
    times = [request() for _ in tqdm(range(requests), desc="requests")]
    cut = warm([each[-1] for each in times])
    said = {"warmup": (cut or 0) + len(first), "settled": cut is not None}
    return times[cut or 0 :], said


def _of_requests(
    times: list[list[float]], length: _Length, said: dict[str, Any], whole: bool = True
) -> Iterator[Sample]:
    """`whole` tells whether each token was seen to arrive: without that there are no gaps between them."""
    found: dict[Metric, list[float]] = {TTFT: [each[0] for each in times], E2E: [each[-1] for each in times]}
    found[THROUGHPUT] = [len(each) / each[-1] for each in times]
    spread = [each for each in times if each[-1] > each[0]]  # beams come all at once
    gaps = [[b - a for a, b in pairwise(each)] for each in spread] if whole else []
    found[TPOT] = [(each[-1] - each[0]) / (len(each) - 1) for each in spread]
    found[ITL] = [quantile(each, 0.5) for each in gaps]
    for metric, values in found.items():
        detail = {"formula": FORMULAE[metric.name], "prompt_tokens": length.prompt, "new_tokens": length.new, **said}
        if not values:
            reason = "all tokens arrive at once" if whole else "several tokens arrive in one piece"
            yield Sample("request-000", None, metric, reason=reason)
        for number, value in enumerate(values):
            yield Sample(f"request-{number:03d}", value, metric, detail=detail if not number else {})
    yield from _tails("itl", gaps)
    yield from _tails("ttft", [[value] for value in found[TTFT]])
    yield from _tails("e2e", [[value] for value in found[E2E]])


def _tails(name: str, groups: list[list[float]]) -> Iterator[Sample]:
    """Upper quantiles of all values with their limits; where there are too few values, the reason.

    The limits are distribution-free where every group is one value, else by drawing whole groups anew: the values of
    a group (gaps of one request, neighbours in a queue) depend on each other.
    """
    values = [value for group in groups for value in group]
    for q in TAILS:
        metric = Metric(f"{name}_p{q * 100:g}", unit="s", better="lower", runtime=True)
        limits = quantile_interval(values, q) if values else None
        if limits is not None and len(groups) < len(values):
            _, low, high = clustered_quantile(groups, q)
            limits = (low, high) if low is not None and high is not None else None
        if limits is None:
            reason = f"{len(values)} values: a p{q * 100:g} with an interval needs {needed(q)}, in 5 groups or more"
            yield Sample("all", None, metric, reason=reason)
            continue
        value, detail = quantile(values, q), {"groups": len(groups)}
        yield Sample("all", value, metric, weight=len(values), detail=detail, low=limits[0], high=limits[1])


def _offline(at_once: Callable[[], tuple[float, int]], length: _Length, batch: int) -> Iterator[Sample]:
    """All requests at once, several times; `at_once` gives the seconds and the tokens."""
    at_once()
    for number in range(6):  # the fewest that give a median an interval
        seconds, tokens = at_once()
        detail = {"batch": batch, "prompt_tokens": length.prompt, "new_tokens": length.new}
        yield Sample(f"batch-{number}", tokens / seconds, OFFLINE, detail=detail)
        yield Sample(f"batch-{number}", batch / seconds, REQUESTS)


def _server(request: Request, times: list[float]) -> Iterator[Sample]:
    found = serve(times, request)
    rate = len(times) / times[-1]
    for number, each in enumerate(found):
        item, detail = f"request-{number:03d}", {"rate": rate} if not number else {}
        cluster = f"queue-{number // QUEUE:03d}"
        yield Sample(item, each.ttft, SERVER_TTFT, detail=detail, cluster=cluster)
        yield Sample(item, each.e2e, SERVER_E2E, cluster=cluster)
    queues = [found[start : start + QUEUE] for start in range(0, len(found), QUEUE)]
    yield from _tails("server_ttft", [[each.ttft for each in queue] for queue in queues])
    yield from _tails("server_e2e", [[each.e2e for each in queue] for queue in queues])


def _beside_parent(model: Model, ids: list[int], new_tokens: int, how: tuple[int, int, int]) -> Iterator[Sample]:
    parent = model.relative("parent")
    if parent is None:
        for metric in RATIOS.values():
            yield Sample("all", None, metric, reason="a base has no parent to be timed beside")
        return
    theirs = prompt_ids(parent, len(ids))
    arrivals(parent, theirs, new_tokens)
    count, rounds, seed = how
    for number, block in enumerate(
        interleaved(
            lambda: arrivals(model, ids, new_tokens), lambda: arrivals(parent, theirs, new_tokens), count, rounds, seed
        )
    ):
        for kind, (mine, other) in zip(RATIOS, block, strict=True):
            detail = {"variant_s": mine, "parent_s": other, "rounds": rounds}
            yield Sample(f"block-{number:03d}", mine / other, RATIOS[kind], detail=detail)
