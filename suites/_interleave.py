"""Two pieces of work timed alternately, in random order, so that whatever else the machine does meets both alike."""

import random
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

Work = Callable[[], object]


class Block(NamedTuple):
    """A block's fastest time of each work: wall seconds, and processor seconds of this process."""

    wall: tuple[float, float]
    cpu: tuple[float, float]


def interleaved(ours: Work, theirs: Work, count: int, rounds: int, seed: int = 0) -> Iterator[Block]:
    """`count` blocks of `rounds` calls of each work, in random order within each round.

    The fastest of a block is what the work takes when it is left alone; of an interrupted call only an
    uninterrupted one beside it says what it would have been.
    """
    order = random.Random(seed)
    for _ in range(count):
        fastest = [[float("inf"), float("inf")], [float("inf"), float("inf")]]
        for _ in range(rounds):
            for which in (0, 1) if order.random() < 0.5 else (1, 0):
                wall, cpu = time.perf_counter(), time.process_time()
                (ours, theirs)[which]()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                fastest[which] = [min(fastest[which][0], wall), min(fastest[which][1], cpu)]
        yield Block((fastest[0][0], fastest[1][0]), (fastest[0][1], fastest[1][1]))
