"""The tree and its packs: each distinct beginning once, every path intact, nothing that belongs to another path."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighin.harness.packing import Shapes, packs
from weighin.harness.prefix_tree import Request, Tree, build

token = st.integers(0, 2)  # few tokens, so that much is shared
texts = st.lists(st.lists(token, min_size=2, max_size=14), min_size=1, max_size=12)
shapes = st.builds(Shapes, st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    return [Request(tuple(ids), draw(st.integers(1, len(ids) - 1))) for ids in draw(texts)]


def beginnings(asked: list[Request]) -> set[tuple[int, ...]]:
    return {ids[:end] for ids, _ in asked for end in range(1, len(ids))}


def spelt(tree: Tree) -> dict[int, tuple[int, ...]]:
    """The beginning that each node stands for."""
    return {int(node): tuple(tree.tokens[path[: d + 1]]) for path in tree.places for d, node in enumerate(path)}


@given(requests())
def test_each_beginning_is_one_node(asked: list[Request]) -> None:
    tree = build(asked)
    found = spelt(tree)
    assert sorted(found) == list(range(tree.nodes))
    assert len(set(found.values())) == tree.nodes and set(found.values()) == beginnings(asked)
    assert [len(found[node]) - 1 for node in range(tree.nodes)] == tree.depths.tolist()


@given(requests())
def test_every_request_finds_its_path(asked: list[Request]) -> None:
    tree = build(asked)
    found = spelt(tree)
    for (ids, own), nodes, targets in zip(asked, tree.split(tree.wanted), tree.split(tree.targets), strict=True):
        assert tuple(targets) == ids[-own:]
        assert [found[node] for node in nodes.tolist()] == [ids[:end] for end in range(len(ids) - own, len(ids))]


@given(requests(), st.randoms())
def test_the_order_of_requests_does_not_matter(asked: list[Request], random: np.random.Generator) -> None:
    shuffled = list(asked)
    random.shuffle(shuffled)  # type: ignore[arg-type]
    one, other = build(asked), build(shuffled)
    assert one.tokens.tolist() == other.tokens.tolist() and one.depths.tolist() == other.depths.tolist()


@given(requests(), shapes)
@settings(max_examples=200)
def test_packs_give_each_node_the_keys_of_its_path_at_its_own_place(asked: list[Request], shape: Shapes) -> None:
    tree = build(asked)
    found = spelt(tree)
    carried: list[int] = []  # the nodes whose keys are kept from the pack before
    seen = []
    for pack in packs(tree, shape):
        assert len(pack.tokens) % shape.rung == 0 and len(pack.tokens) < pack.count + shape.rung
        store = carried + list(range(pack.first, pack.first + pack.count))
        assert pack.tokens[: pack.count].tolist() == tree.tokens[pack.first : pack.first + pack.count].tolist()
        rows: list[tuple[int, int, list[int]]] = []
        for group in pack.groups:
            assert group.queries.shape[1] == shape.chunk
            assert group.keys.shape[1] == (group.number + 1) * shape.chunk
            for queries, keys in zip(group.queries, group.keys, strict=True):
                rows += [(group.number * shape.chunk + row, int(q), keys.tolist()) for row, q in enumerate(queries)]
        for row in range(pack.count):
            node = pack.first + row
            depth, query, keys = rows[int(pack.back[row])]
            assert query == row and depth == tree.depths[node]
            assert [found[store[key]] for key in keys[: depth + 1]] == [found[node][: d + 1] for d in range(depth + 1)]
            ours = {found[store[key]] for key in keys}  # what is behind is masked, and never another path's
            assert all(longer[: len(mine)] == mine for mine in ours for longer in ours if len(longer) > len(mine))
        seen += store[len(carried) :]
        carried = [store[int(place)] for place in pack.carry]
    assert seen == list(range(tree.nodes))


@given(requests(), shapes)
def test_little_is_computed_beyond_the_tree(asked: list[Request], shape: Shapes) -> None:
    tree = build(asked)
    assert sum(len(pack.tokens) for pack in packs(tree, shape)) <= tree.nodes + shape.rung * len(
        list(packs(tree, shape))
    )


def test_shared_beginnings_are_counted_once() -> None:
    header = tuple(range(100))
    asked = [Request((*header, 200 + q, 300 + choice, 7), 2) for q in range(10) for choice in range(4)]
    tree = build(asked)
    assert tree.nodes == 100 + 10 + 40
    computed = sum(len(pack.tokens) for pack in packs(tree, Shapes(tokens=128, rung=8)))
    assert computed <= 1.1 * tree.nodes


@pytest.mark.parametrize(("ids", "own"), [((1, 2), 0), ((1, 2), 2), ((1,), 1), ((), 0)])
def test_what_cannot_be_scored_is_refused(ids: tuple[int, ...], own: int) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        build([Request(ids, own)])
