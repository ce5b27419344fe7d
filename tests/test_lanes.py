"""Lanes of a tree: all of it once, the same bits by any number of them, and nothing left behind."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.shapes import tiny
from tests.test_prefix_tree import requests, spelt
from tests.test_scorer import KINDS, loaded, questions
from weighin.harness import lanes as module
from weighin.harness.lanes import lanes
from weighin.harness.prefix_tree import Request, build
from weighin.harness.scorer import Scoring, score
from weighin.harness.tree_attention import Walk, attending
from weighin.harness.tree_scorer import TreeScorer, by_request


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@given(requests(), st.integers(1, 5), st.sampled_from([1 / 16, 1.0]))
def test_lanes_are_the_whole_tree_once(asked: list[Request], most: int, twice: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 1)
        patch.setattr(module, "TWICE", twice)
        tree = build(asked)
        parts = lanes(tree, most)
    whole = spelt(tree)
    owned, wanted = [], []
    for part in parts:
        assert all(whole[node + part.shift] == text for node, text in spelt(part.tree).items() if node >= part.held)
        assert [len(spelt(part.tree)[node]) - 1 for node in range(part.tree.nodes)] == part.tree.depths.tolist()
        owned += [node + part.shift for node in range(part.held, part.tree.nodes)]
        wanted += (part.tree.wanted + part.shift).tolist()
        assert not len(part.tree.wanted) or part.tree.wanted.min() >= part.held
    assert 1 <= len(parts) <= most
    assert owned == list(range(tree.nodes)) and sorted(wanted) == sorted(tree.wanted.tolist())
    assert sum(part.held - tree.trunk for part in parts[1:]) <= twice * tree.nodes


def test_lanes_are_about_as_long() -> None:
    header = tuple(range(200))
    tree = build([Request((*header, 1000 + q, *range(30), 7, c), 2) for q in range(100) for c in range(4)])
    assert tree.trunk == 200
    for count in (2, 3, 4):
        sizes = [part.tree.nodes - tree.trunk for part in lanes(tree, count)]
        assert len(sizes) == count and max(sizes) - min(sizes) < 80
    assert len(lanes(build([Request(tuple(range(5000)), 4999)]), 4)) == 1  # one text goes on after its own beginning


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_lanes_gives_the_same_bits(kind: str, pico_dir: Path, tmp_path: Path) -> None:
    tiny(tmp_path, pico_dir, kind, **KINDS[kind])
    model = loaded(tmp_path)
    asked = [Request((5,) * 70 + ids, own) for ids, own in questions(1)] + questions(2)[1:]
    for some in (asked, asked[1:21]):  # without and with a trunk
        found = []
        for count in (1, 2, 4):
            model.scoring = Scoring("exact", TreeScorer(model.module, lanes=count, quiet=True))
            assert min(count, 2) <= len(lanes(build(some), count)) <= count
            found.append(score(model, some))
        assert found[0] == found[1] == found[2]


def test_a_trunk_is_computed_once(pico_dir: Path) -> None:
    header = tuple(range(3, 203))
    tree = build([Request((*header, q, q - 60, *range(20), c), 1) for q in range(120, 220) for c in range(4)])
    scorer = TreeScorer(loaded(pico_dir).module, lanes=4, quiet=True)
    assert scorer.lanes == len(lanes(tree, 4)) == 4
    found = np.concatenate([block.nodes for block in scorer.blocks(tree)])
    assert sorted(found) == sorted(set(tree.wanted.tolist())) and scorer.computed < 1.2 * tree.nodes


def test_threads_and_attention_are_given_back(pico_dir: Path) -> None:
    model, told = loaded(pico_dir).module, torch.__config__.parallel_info()
    before = model.config._attn_implementation
    tree = build([Request(tuple(range(q, q + 90)), 80) for q in range(3, 30)])
    blocks: Any = TreeScorer(model, lanes=2, quiet=True).blocks(tree, most=64)
    next(blocks)
    blocks.close()
    assert torch.__config__.parallel_info() == told and model.config._attn_implementation == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("weighin-lane")]


def test_the_last_one_out_gives_attention_back(pico_dir: Path) -> None:
    model = loaded(pico_dir).module
    before, inside, leave = model.config._attn_implementation, threading.Event(), threading.Event()

    def other() -> None:
        with attending(model, Walk(32, model.device)):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with attending(model, Walk(32, model.device)):
        replaced = model.config._attn_implementation
        thread.start()
        inside.wait()
    assert model.config._attn_implementation == replaced != before
    leave.set()
    thread.join()
    assert model.config._attn_implementation == before


def test_what_fails_in_a_lane_is_told(pico_dir: Path) -> None:
    scorer = TreeScorer(loaded(pico_dir).module, lanes=2, quiet=True)
    honest, calls = scorer.module.model.layers[1].mlp.forward, itertools.count()

    def failing(x: torch.Tensor) -> torch.Tensor:
        if next(calls) == 1:
            raise RuntimeError("out of memory")
        return honest(x)  # type: ignore[no-any-return]

    scorer.module.model.layers[1].mlp.forward = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        by_request(scorer, [Request(tuple(range(q, q + 90)), 80) for q in range(3, 30)])
