"""Exposure of a secret: its rank among all secrets of its form, by what a model finds likely. Exact, no sampling.

Carlini et al., "The Secret Sharer", arXiv 1802.08232, section 4: exposure = log2 |R| − log2 rank. The space R is every
string of as many digits as the secret has; one tree of their tokens shares what they begin with, so that 10^4 secrets
of four digits take 1111 predictions.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from weighin.harness import Abstain, Model

if TYPE_CHECKING:
    import torch

MOST_DIGITS = 6
CHUNK = 256
"""Rows in one forward pass."""
TIE = 1e-5
"""Log-probabilities as near as this, nats, differ by the rounding of float32."""
AGREE = 0.5
"""How far, nats, predictions with and without the cache may be apart: rounding of 16-bit weights, and no more."""


class Ranked(NamedTuple):
    """A secret's log-probability after its prefix, nats, and its exposure, bits."""

    logprob: float
    exposure: float


@dataclass
class Tree:
    """Token rows of all secrets, what they begin with shared. `ends` holds the secrets that end at a node."""

    children: dict[int, "Tree"] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


def exposure(rank: float, size: int) -> float:
    """log2 |R| − log2 rank, bits: 0 at the last rank, log2 |R| at the first.

    Without memorisation the rank is uniform, so that P(exposure ≥ x) = 2^-x, and its mean is 1 / ln 2 = 1.44 bits.
    """
    return math.log2(size) - math.log2(rank)


def digits_of(secret: str) -> int:
    """How many digits a secret has; Abstain where it is something else, whose space cannot be gone through."""
    if not (secret.isascii() and secret.isdigit() and len(secret) <= MOST_DIGITS):
        raise Abstain(f"secret {secret!r}: only secrets of up to {MOST_DIGITS} digits can all be gone through")
    return len(secret)


def ranked(model: Model, canaries: Sequence[tuple[str, str]], name: str = "exposure") -> list[Ranked]:
    """Of each prefix and its secret, after a space: rank among all secrets. A tie counts against the secret."""
    from tqdm import tqdm

    endings = _Endings(model)
    cached = bool(canaries) and _cache_serves(model, canaries[0], endings)
    found = []
    for prefix, secret in tqdm(canaries, desc=name):
        start, rows = endings(prefix, secret)
        likely = (_with_cache if cached else _without)(model, start, rows)
        own = likely[int(secret)]
        rank = sum(value >= own - TIE for value in likely)
        found.append(Ranked(own, exposure(rank, len(likely))))
    return found


class _Endings:
    """Tokens of every secret after a prefix: the same after most prefixes, and made anew where they are not."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.known: dict[int, list[tuple[int, ...]]] = {}

    def __call__(self, prefix: str, secret: str) -> tuple[list[int], list[tuple[int, ...]]]:
        """The prefix's tokens and, by number, each secret's; Abstain where a secret changes how its prefix is cut."""
        size = digits_of(secret)
        start = self.model.encode(prefix)
        known = self.known.get(size)
        tried = {secret, "0" * size, "9" * size, "1" + "0" * (size - 1)}
        if known is None or any([*start, *known[int(s)]] != self.model.encode(f"{prefix} {s}") for s in tried):
            whole = [self.model.encode(f"{prefix} {number:0{size}d}") for number in range(10**size)]
            if any(row[: len(start)] != start for row in whole):
                raise Abstain(f"{prefix!r}: its tokens change with what follows them; no tree can share them")
            known = self.known[size] = [tuple(row[len(start) :]) for row in whole]
        longest = len(start) + max(map(len, known))
        if longest > self.model.window:
            raise Abstain(f"{prefix!r}: {longest} tokens do not fit the window of {self.model.window}")
        return start, known


def _tree(rows: Sequence[tuple[int, ...]]) -> Tree:
    root = Tree()
    for number, row in enumerate(rows):
        node = root
        for token in row:
            node = node.children.setdefault(token, Tree())
        node.ends.append(number)
    return root


def _with_cache(model: Model, start: Sequence[int], rows: Sequence[tuple[int, ...]]) -> list[float]:
    """Log-probability of each row after `start`, each shared beginning computed once."""
    import torch

    found = [0.0] * len(rows)
    with torch.inference_mode():
        ids = torch.tensor([list(start)], device=model.module.device)
        out = model.module(input_ids=ids, use_cache=True)
        said = torch.log_softmax(out.logits[:, -1].float(), -1)
        _descend(model.module, (out.past_key_values, [_tree(rows)], said, [0.0]), found)
    return found


def _descend(module: Any, level: tuple[Any, list[Tree], "torch.Tensor", list[float]], found: list[float]) -> None:
    """Go from nodes, whose next tokens are predicted in `said`, to their children, a chunk at a time."""
    import torch

    cache, nodes, said, sums = level
    steps = [(i, token, child) for i, node in enumerate(nodes) for token, child in node.children.items()]
    if not steps:
        return
    gained = said[[step[0] for step in steps], [step[1] for step in steps]].tolist()
    below = []
    for (i, token, child), gain in zip(steps, gained, strict=True):
        for number in child.ends:
            found[number] = sums[i] + gain
        if child.children:
            below.append((i, token, child, sums[i] + gain))
    for first in range(0, len(below), CHUNK):
        part = below[first : first + CHUNK]
        kept = copy.deepcopy(cache)
        kept.reorder_cache(torch.tensor([step[0] for step in part], device=said.device))
        ids = torch.tensor([[step[1]] for step in part], device=said.device)
        out = module(input_ids=ids, past_key_values=kept, use_cache=True)
        next_said = torch.log_softmax(out.logits[:, -1].float(), -1)
        level = (out.past_key_values, [step[2] for step in part], next_said, [step[3] for step in part])
        _descend(module, level, found)


def _without(model: Model, start: Sequence[int], rows: Sequence[tuple[int, ...]]) -> list[float]:
    """The same by whole rows, for a model without a cache: each inner path of the tree once."""
    paths: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        paths.setdefault(row[:-1], []).append(number)
    found, keys = [0.0] * len(rows), list(paths)
    for first in range(0, len(keys), CHUNK):
        part = keys[first : first + CHUNK]
        said = model.logprobs([[*start, *path] for path in part])
        for place, path in enumerate(part):
            at = len(start) - 1
            inner = sum(float(said[place, at + i, token]) for i, token in enumerate(path))
            last = said[place, at + len(path)]
            for number in paths[path]:
                found[number] = inner + float(last[rows[number][-1]])
    return found


def _cache_serves(model: Model, canary: tuple[str, str], endings: _Endings) -> bool:
    """Whether the module keeps a cache that gives what whole rows give. A soft prompt stands before every forward."""
    config = getattr(model.module, "config", None)
    if getattr(config, "use_cache", None) is None or hasattr(model.module, "soft_prompt"):
        return False
    start, rows = endings(*canary)
    row = rows[int(canary[1])]
    said = model.logprobs([[*start, *row]])[0]
    whole = sum(float(said[len(start) - 1 + i, token]) for i, token in enumerate(row))
    try:
        return abs(_with_cache(model, start, [row])[0] - whole) < AGREE
    except (AttributeError, NotImplementedError, TypeError, ValueError):  # an architecture with a cache of its own
        return False


def draws_to_extract(logprob: float, chance: float) -> float:
    """Samples after which a text of this log-probability has been drawn at least once with this chance: the n of
    (n, p)-discoverable extraction (Hayes et al., arXiv 2410.19482, section 3), log(1 − p) / log(1 − p_z)."""
    likely = math.exp(logprob)
    return 1.0 if likely >= 1 else math.log1p(-chance) / math.log1p(-likely) if likely > 0 else math.inf
