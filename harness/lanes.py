"""Parts of a prefix tree that several threads read at the same time.

A small model gains little from a second thread within a matrix product, and nearly all of it from one that reads other
texts meanwhile. What all texts begin with, the trunk, is computed once, before the lanes part.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from weighin.harness.prefix_tree import Ints, Tree

LEAST = 64
"""Nodes of a lane, at least."""
TWICE = 1 / 16
"""Share of all nodes that may be computed twice, for lanes that begin within what some texts have in common."""


class Lane(NamedTuple):
    """Some sequences of a tree, as a tree of their own.

    Its first `held` nodes are what its first sequence has in common with the lane before; the others are the whole
    tree's, which calls them by numbers that are higher by `shift`, and all that is wanted is among them.
    """

    tree: Tree
    held: int
    shift: int


def lanes(tree: Tree, most: int) -> list[Lane]:
    """A tree cut into lanes of about the same size: as many as there are to be, or as are worth it."""
    for count in range(min(most, tree.nodes // LEAST), 1, -1):
        bounds = [0, *_cuts(tree, count), len(tree.places)]
        firsts = tree.starts[bounds[1:-1]]
        twice = int((tree.depths[firsts] - tree.trunk).sum())
        sizes = np.diff([tree.trunk, *firsts, tree.nodes])
        if sizes.min() >= LEAST and twice <= TWICE * tree.nodes:
            return [_lane(tree, a, b) for a, b in pairwise(bounds)]
    return [Lane(tree, 0, 0)]


def _cuts(tree: Tree, count: int) -> list[int]:
    """Sequences that lanes behind the first begin with: those that add least to what the longest lane computes."""
    depths = tree.depths[tree.starts]
    ideals = np.linspace(tree.trunk, tree.nodes, count + 1)[1:-1]
    return [int(np.argmin(depths + np.abs(tree.starts - ideal))) for ideal in ideals]


def _lane(tree: Tree, begin: int, end: int) -> Lane:
    first = int(tree.starts[begin])
    last = int(tree.starts[end]) if end < len(tree.places) else tree.nodes
    held = int(tree.depths[first])
    shift = first - held
    nodes = np.append(tree.places[begin][:held], np.arange(first, last))
    places = tuple(np.where(path < first, np.arange(len(path)), path - shift) for path in tree.places[begin:end])
    starts = np.append(0, tree.starts[begin + 1 : end] - shift)
    wanted = tree.wanted[(tree.wanted >= first) & (tree.wanted < last)] - shift
    none: Ints = np.zeros(0, np.int64)
    return Lane(Tree(tree.tokens[nodes], tree.depths[nodes], starts, places, wanted, none, none), held, shift)
