"""Threads that compute side by side, each with its share of the threads that torch may use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST = 4
"""Threads of a crew, at most: each holds what it computes with."""


def width(device: Any) -> int:
    """How many there are to be: as many as torch may use of a processor, one where an accelerator computes."""
    import torch

    return min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1


@contextmanager
def crew(count: int) -> Iterator[Callable[[Iterable[Iterator[Any]]], Iterator[Any]]]:
    """A function that has `count` threads advance some iterators, and yields one item of each in turns.

    One item of each is computed ahead. A crew of one is the thread that asks.
    """
    if count == 1:
        yield lambda streams: (item for stream in streams for item in stream)
        return
    import torch

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "weighin-lane", torch.set_num_threads, (max(threads // count, 1),)) as pool:
            yield lambda streams: _in_turns(pool, streams)
    finally:
        torch.set_num_threads(threads)  # their share had become what any new thread begins with


def _in_turns(pool: ThreadPoolExecutor, streams: Iterable[Iterator[Any]]) -> Iterator[Any]:
    ahead = deque((stream, pool.submit(next, stream, None)) for stream in streams)
    while ahead:
        stream, item = ahead[0][0], ahead.popleft()[1].result()
        if item is not None:
            ahead.append((stream, pool.submit(next, stream, None)))
            yield item
