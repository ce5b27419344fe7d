"""A prefix tree cut into packs: runs of nodes that one forward pass computes, and how each node finds its path's keys.

In a pack every sequence's tokens are dealt out to chunks by their depth: token d is row d mod `chunk` of chunk
d // `chunk`, whose keys are its path's from the root to the end of the chunk. So what attention computes for a token
has a shape and a place that depend on its depth alone, and never on what else is asked: the same bits in any company.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from weighin.harness.prefix_tree import Ints, Tree

KEYS = 2**14
"""Rows of keys that one call of attention gathers at most."""


class Shapes(NamedTuple):
    """Tokens in a pack, of which the last is filled up to a multiple of `rung`, and rows of queries in a chunk."""

    tokens: int = 1024
    rung: int = 64
    chunk: int = 32


class Group(NamedTuple):
    """Chunks of one depth: `queries` (chunks, chunk) are rows of the pack, `keys` (chunks, depth) rows of the store.

    The store is the path that was carried over from the pack before, by depth, then the pack itself.
    """

    number: int
    queries: Ints
    keys: Ints


@dataclass(frozen=True)
class Pack:
    """Nodes `first` to `first + count` of a tree as one forward pass.

    `tokens` and `depths` are filled up behind `count`. `back` (tokens) finds each row of the pack among the rows of all
    groups. `carry` are the rows of the store that the next pack's paths begin with.
    """

    first: int
    count: int
    tokens: Ints
    depths: Ints
    groups: tuple[Group, ...]
    back: Ints
    carry: Ints


def packs(tree: Tree, shapes: Shapes, begin: int = 0, end: int | None = None) -> Iterator[Pack]:
    """The packs of a tree's nodes from `begin` to `end`, in the order in which they have to be computed."""
    ends = np.append(tree.starts[1:], tree.nodes)
    end, sequence = tree.nodes if end is None else end, 0
    for first in range(begin, end, shapes.tokens):
        last = min(first + shapes.tokens, end)
        while ends[sequence] <= first:
            sequence += 1
        within = []
        at = sequence
        while at < len(ends) and tree.starts[at] < last:
            within.append(at)
            at += 1
        yield _pack(tree, shapes, (first, last), within)


def _pack(tree: Tree, shapes: Shapes, span: tuple[int, int], sequences: list[int]) -> Pack:
    first, last = span
    held = int(tree.depths[first])  # the path that is carried over: a child's depth is the length of what is before it
    by_number: dict[int, list[tuple[Ints, Ints, Ints]]] = defaultdict(list)
    for sequence in sequences:
        start = max(int(tree.starts[sequence]), first)
        path = tree.places[sequence]
        end = min(int(path[-1]) + 1, last)
        if end > start:
            low = int(tree.depths[start])
            _deal(by_number, path[: low + end - start], (low, start - first), (first, held), shapes.chunk)
    groups, rows, found = [], [], 0
    for number in sorted(by_number):
        most = max(1, KEYS // ((number + 1) * shapes.chunk))
        each = by_number[number]
        for at in range(0, len(each), most):
            part = each[at : at + most]
            groups.append(Group(number, np.stack([p[0] for p in part]), np.stack([p[1] for p in part])))
            for place, (queries, _, own) in enumerate(part):
                rows.append(np.stack([queries[own], found + place * shapes.chunk + own]))
            found += len(part) * shapes.chunk
    count = last - first
    width = -(-count // shapes.rung) * shapes.rung
    back = np.zeros(width, np.int64)
    row, place = np.concatenate(rows, axis=1)
    back[row] = place
    return Pack(
        first, count, _filled(tree.tokens[first:last], width), _filled(tree.depths[first:last], width), tuple(groups),
        back, _carry(tree, sequences[-1], span, held),
    )  # fmt: skip


def _deal(
    by_number: dict[int, list[tuple[Ints, Ints, Ints]]],
    path: Ints,
    begins: tuple[int, int],
    store: tuple[int, int],
    chunk: int,
) -> None:
    """Deal the tokens of a path out to chunks: from depth `begins[0]` on they are the pack's, from row `begins[1]` on.

    Rows that are not the path's own repeat one that is, and so do keys behind its end: no other text's numbers come
    near it.
    """
    (low, row), (first, held) = begins, store
    keys = np.where(path >= first, held + path - first, np.arange(len(path)))
    for number in range(low // chunk, (len(path) - 1) // chunk + 1):
        top = (number + 1) * chunk
        depths = np.arange(number * chunk, top)
        own = np.flatnonzero((depths >= low) & (depths < len(path)))
        queries = row + np.clip(depths, low, len(path) - 1) - low
        by_number[number].append((queries, keys[np.minimum(np.arange(top), len(path) - 1)], own))


def _carry(tree: Tree, sequence: int, span: tuple[int, int], held: int) -> Ints:
    """Rows of the store from which the next pack's first node goes on."""
    first, last = span
    if last == tree.nodes:
        return np.zeros(0, np.int64)
    path = tree.places[sequence][: int(tree.depths[last])]
    return np.where(path >= first, held + path - first, np.arange(len(path)))


def _filled(values: Ints, width: int) -> Ints:
    return np.concatenate([values, np.zeros(width - len(values), np.int64)])
