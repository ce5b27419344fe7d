"""Planted truths of the suite latency: a slower twin, an equal twin, a server that stalls, a cold start."""

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator

from weighin.harness.plant import Recovered, Target, plant
from weighin.suites._arrivals import schedule, serve
from weighin.suites._interleave import interleaved
from weighin.suites._quantiles import needed, quantile, quantile_interval, warm

BLOCKS = 100


def _work() -> Callable[[], object]:
    """Something that keeps the processor busy for a fraction of a millisecond, as a small model's layer does."""
    import torch

    left = torch.ones(128, 128)

    def run() -> object:
        return left @ left @ left

    return run


def _slower(work: Callable[[], object], share: float) -> Callable[[], object]:
    """The same work, and then a pause of a share of its own time."""
    times = []
    for _ in range(500):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    pause = share * statistics.median(times)

    def run() -> object:
        found = work()
        until = time.perf_counter() + pause  # a sleep so short would take several times as long as it was told
        while time.perf_counter() < until:
            pass
        return found

    return run


def _judged_slower(ratios: list[float]) -> bool:
    """Whether the median ratio of some blocks is above 1, by its distribution-free limit, one-sided at 5 %."""
    limits = quantile_interval(ratios, 0.5, level=0.9)
    return limits is not None and limits[0] > 1


@plant(slow=True, needs=("torch", "scipy"))
def a_slower_twin_and_an_equal_one() -> Iterator[Recovered]:
    """The same work beside itself, and beside itself with 5 % more; 100 interleaved blocks, judged by their minima.

    The equal twins are tried 400 times: were the true rate of false alarms 5 %, it would show as more than 7 % in
    three of a hundred calibrations.
    """
    work = _work()
    for share, planted, tries, target in ((0.05, "+5 %", 60, Target("≥", 0.95)), (0.0, "0 %", 400, Target("≤", 0.07))):
        ours, found = _slower(work, share) if share else work, [0, 0]
        for number in range(tries):
            pool = list(interleaved(ours, work, BLOCKS, 6, seed=number))
            for kind in (0, 1):
                found[kind] += _judged_slower([block[kind][0] / block[kind][1] for block in pool])
        for kind, name in enumerate(("wall", "CPU")):
            yield Recovered(f"judged slower, {name} time", planted, found[kind] / tries, target)


class _Virtual:
    """A clock that only moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@plant(needs=("scipy",))
def a_server_that_stalls() -> Iterator[Recovered]:
    """Services of 10 ms, and every 30 s one of 2 s; 20 requests a second. A closed loop would report 10 ms."""
    clock, stalled = _Virtual(), 0.0

    def request() -> list[float]:
        nonlocal stalled
        seconds = 0.01
        if clock.now() - stalled >= 30:
            stalled, seconds = clock.now(), 2.0
        clock.sleep(seconds)
        return [seconds]

    served = serve(schedule(20, 6000, seed=0), request, clock)
    waits, alone = [each.ttft for each in served], [each.service for each in served]
    limits = quantile_interval(waits, 0.99)
    low, high = limits or (None, None)
    value = quantile(waits, 0.99)
    yield Recovered("server TTFT p99", "2 s stalls", value, Target("≥", 1.0), unit="s", low=low, high=high)
    yield Recovered("service time p99", "2 s stalls", quantile(alone, 0.99), Target("=", 0.01, 1e-6), unit="s")


@plant(needs=("scipy",))
def quantiles_of_known_distributions() -> Iterator[Recovered]:
    """How often the interval of a quantile holds the true one, over 400 samples of an exponential distribution."""
    draw = random.Random(0)
    for q, n in ((0.5, 30), (0.9, 100), (0.99, 500)):
        truth, held = -math.log(1 - q), 0
        for _ in range(400):
            limits = quantile_interval([draw.expovariate(1) for _ in range(n)], q)
            held += limits is not None and limits[0] <= truth <= limits[1]
        yield Recovered(
            "coverage of 95 % limits", f"p{q * 100:g}, n = {n}", held / 400, Target("≥", 0.93), planted=0.95
        )
    yield Recovered("fewest values of a p99", "exact tail", float(needed(0.99)), Target("=", 368))
    refused = quantile_interval(list(range(367)), 0.99) is None
    yield Recovered("p99 of 367 values refused", "exact tail", float(refused), Target("=", 1))


@plant()
def a_cold_start() -> Iterator[Recovered]:
    """Times that fall to a steady 10 ms over the first 20 of 200 requests: what is kept is as good as never cold."""
    draw, found = random.Random(0), []
    for _ in range(50):
        times = [
            0.01 * (1 + 2 * max(0.0, 1 - at / 20)) * draw.lognormvariate(0, 0.05 if draw.random() < 0.97 else 1)
            for at in range(200)
        ]
        found.append(statistics.median(times[warm(times) or 0 :]) / 0.01 - 1)
    yield Recovered("bias of the median", "20 cold requests of 200", statistics.fmean(found), Target("in", 0, 0.01))
