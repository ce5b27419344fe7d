"""Token sequences as one tree, so that what several of them begin with is computed once.

A node is one distinct beginning of the sequences that are read, named by its place in depth-first order: sorted, each
sequence adds to the tree what it does not share with the one before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Request(NamedTuple):
    """Token ids of a text; its last `own` tokens are scored, each after all that stands before it.

    ValueError from `build` where that is nothing, or the first token, which nothing predicts.
    """

    ids: tuple[int, ...]
    own: int


@dataclass(frozen=True)
class Tree:
    """The sequences that are read (each request without its last token), depth first, and what is asked of them.

    Arrays by node: `tokens`, `depths`. By sequence, in their order: `starts`, the first node that it adds, and
    `places`, its nodes from the root on. By scored token, request after request: `wanted`, the node that predicts it,
    and `targets`, the token; request `i` has those from `bounds[i]` to `bounds[i + 1]`.
    """

    tokens: Ints
    depths: Ints
    starts: Ints
    places: tuple[Ints, ...]
    wanted: Ints
    targets: Ints
    bounds: Ints

    @property
    def nodes(self) -> int:
        """How many distinct beginnings there are: the tokens that must be computed."""
        return len(self.tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest text, with its last one, which is not read."""
        return int(self.depths.max(initial=0)) + 1

    @property
    def trunk(self) -> int:
        """How many tokens all sequences begin with: the first nodes."""
        return _common(self.tokens[self.places[0]], self.tokens[self.places[-1]]) if self.places else 0

    def split(self, values: Any) -> list[Any]:
        """Values by scored token, cut up by request."""
        return [values[a:b] for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]


def build(requests: Sequence[Request]) -> Tree:
    """The tree of all requests. ValueError where one of them has nothing to score."""
    for asked, own in requests:
        if not 0 < own < len(asked):
            raise ValueError(f"{own} of {len(asked)} tokens cannot be scored: one or more, and not the first")
    read = sorted({request.ids[:-1] for request in requests})
    tokens: list[Ints] = []
    depths: list[Ints] = []
    starts: list[int] = []
    places: list[Ints] = []
    before: Ints = np.zeros(0, np.int64)
    path: Ints = np.zeros(0, np.int64)
    count = 0
    for row in read:
        ids: Ints = np.array(row, np.int64)
        shared = _common(before, ids)
        path = np.concatenate([path[:shared], np.arange(count, count + len(ids) - shared)])
        tokens.append(ids[shared:])
        depths.append(np.arange(shared, len(ids)))
        starts.append(count)
        places.append(path)
        before, count = ids, count + len(ids) - shared
    where = dict(zip(read, places, strict=True))
    wanted = [where[asked[:-1]][len(asked) - 1 - own :] for asked, own in requests]
    targets: list[Ints] = [np.array(asked[len(asked) - own :], np.int64) for asked, own in requests]
    bounds = np.cumsum([0, *(own for _, own in requests)])
    return Tree(
        _joined(tokens), _joined(depths), np.array(starts, np.int64), tuple(places), _joined(wanted), _joined(targets),
        bounds,
    )  # fmt: skip


def _common(a: Ints, b: Ints) -> int:
    """How many tokens two sequences begin with alike."""
    width = min(len(a), len(b))
    apart = np.flatnonzero(a[:width] != b[:width])
    return int(apart[0]) if len(apart) else width


def _joined(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
