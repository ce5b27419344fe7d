"""Tiers: a planted order is found, what chance explains shares a tier, what cannot be ranked says why."""

from pathlib import Path

import numpy as np
import pytest

from tests.stores import DISK, ENERGY, TTFT, Setting, fill, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.tiers import rank


def right(share: float, n: int = 400) -> list[int]:
    """The first items right."""
    return [1] * round(share * n) + [0] * (n - round(share * n))


def test_planted_levels_are_three_tiers(tmp_path: Path) -> None:
    grid = {name: {"accuracy": shares(right(share))}
            for name, share in (("low", 0.5), ("best", 0.9), ("mid", 0.7), ("twin", 0.9), ("near", 0.895))}  # fmt: skip
    found = rank(fill(tmp_path / "w.duckdb", grid), "accuracy.acc")
    assert found.variants == ("best", "twin", "near", "mid", "low") and found.tiers == (1, 1, 1, 2, 3)
    assert found.tier("mid") == 2 and found.tier("nobody") is None and found.caveat is None


def test_equal_models_share_a_tier_nearly_always(tmp_path: Path) -> None:
    """Eight variants that are right with the same chance: Holm holds a second tier to about 5 % of stores."""
    draw, split = np.random.default_rng(0), 0
    for round_ in range(20):
        grid = {f"v{k}": {"accuracy": shares(draw.integers(0, 2, 60).tolist())} for k in range(8)}
        split += max(rank(fill(tmp_path / f"{round_}.duckdb", grid), "accuracy.acc").tiers) > 1
    assert split <= 6, "P(more than 6 of 20) is below 1e-4 even where each has a chance of 5 % against the luckiest"


def test_bytes_are_counted_and_less_is_better(tmp_path: Path) -> None:
    grid = {name: {"memory": numbers([size], DISK)} for name, size in (("a", 300), ("b", 100), ("c", 100))}
    found = rank(fill(tmp_path / "w.duckdb", grid), "memory.disk")
    assert found.variants == ("b", "c", "a") and found.tiers == (1, 1, 2)


def test_what_cannot_be_ranked_says_why(tmp_path: Path) -> None:
    grid = {
        name: {"latency": numbers([0.1] * 9, TTFT), "energy": numbers([1.0, 2.0] * 5, ENERGY, "modelled"),
               "accuracy": shares(right(0.5, 10))}
        for name in ("base", "fake")
    }  # fmt: skip
    store = fill(tmp_path / "w.duckdb", grid, Setting(forms={"fake": "simulated"}))
    assert rank(store, "latency.ttft").caveat == "dense kernel: the runtime simulates this format"
    assert rank(store, "energy.energy").caveat == "modelled"
    assert rank(store, "latency.ttft").tiers == () and len(rank(store, "latency.ttft").variants) == 2
    other = fill(tmp_path / "o.duckdb", {k: {"latency": numbers([0.1] * 9, TTFT)} for k in ("a", "b")})
    assert rank(other, "latency.ttft").caveat == "not interleaved"
    with pytest.raises(WeighinError, match="no metric"):
        rank(store, "accuracy.nope")
