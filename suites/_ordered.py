"""The order test's shards: runs of consecutive items, and the same items in other orders.

Valid only where the order carries nothing by itself: a file that is sorted by topic or number is likelier in its own
order for any model.
"""

import random
from collections.abc import Sequence

import numpy as np

from weighin.harness import Abstain, Model
from weighin.suites._membership import Floats
from weighin.suites._token_scores import score

LEAST = 5
"""Fewest shards."""


def order_scores(
    model: Model, items: Sequence[str], size: int, permutations: int, batch_size: int, seed: int = 0
) -> tuple[Floats, Floats, int]:
    """Log-probability, nats, of each shard in its own order (m) and in random ones (m, P), and the items in a shard.

    A shard is `size` items, fewer where the model's window does not hold them, one a line. Abstains where it holds
    fewer than two, or where there are too few shards.
    """
    while size > 1 and max(len(model.encode("\n".join(shard))) for shard in _cut(items, size)) > model.window:
        size -= 1
    shards = _cut(items, size)
    if size < 2 or len(shards) < LEAST:
        raise Abstain(
            f"the order test needs {LEAST} shards of two items or more that fit the window of {model.window} tokens; "
            f"{len(items)} items make {len(shards)} shards of {size}"
        )
    source, rows = random.Random(seed), []
    for shard in shards:
        orders = [shard] + [source.sample(shard, len(shard)) for _ in range(permutations)]
        # Another order may be cut into a few more tokens than its own.
        rows += [model.encode("\n".join(order))[: model.window] for order in orders]
    totals = np.array([tokens.t.sum() for tokens in score(model, rows, batch_size)], np.float64)
    table = totals.reshape(len(shards), 1 + permutations)
    return table[:, 0], table[:, 1:], size


def _cut(items: Sequence[str], size: int) -> list[list[str]]:
    """Runs of `size` items; the ragged tail is dropped, unless it is all there is."""
    whole = [list(items[i : i + size]) for i in range(0, len(items) - size + 1, size)]
    return whole or [list(items)]
