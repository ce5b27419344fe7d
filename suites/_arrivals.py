"""Requests that arrive by themselves: a Poisson process, served one after the other, timed from the schedule.

A closed loop waits for an answer before it asks again, so a stall hides all the requests that would have come
meanwhile ("coordinated omission"). Here every request has a time at which it was to begin, fixed beforehand, and its
wait counts from then (MLPerf Inference's server scenario).
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Time that can be slept through."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        ...


class WallClock:
    """The machine's own."""

    def now(self) -> float:
        """`time.perf_counter`."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Served:
    """One request, seconds: how long after its scheduled time the first token came and the last, and how long its
    own service took."""

    ttft: float
    e2e: float
    service: float


def schedule(rate: float, requests: int, seed: int) -> list[float]:
    """Arrival times, seconds from the start, of a Poisson process of `rate` requests a second."""
    draw, at, found = random.Random(seed), 0.0, []
    for _ in range(requests):
        at += draw.expovariate(rate)
        found.append(at)
    return found


def serve(times: Sequence[float], request: Callable[[], Sequence[float]], clock: Clock | None = None) -> list[Served]:
    """Serve scheduled requests in order. `request` returns the seconds from its call at which each token arrived."""
    clock = clock or WallClock()
    began, found = clock.now(), []
    for at in times:
        early = began + at - clock.now()
        if early > 0:
            clock.sleep(early)
        called = clock.now()
        arrived = request()
        late = called - began - at
        found.append(Served(late + arrived[0], late + arrived[-1], clock.now() - called))
    return found
