"""Hypervolume from a fixed point, its change between runs, and a knee only where it is real."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.objectives import BYTES, MEAN, SHARES, counted, objective
from tests.stores import ACC, DISK, Setting, fill, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.front import View, front
from weighin.results.front import in_words as said_of
from weighin.results.stability import drawn
from weighin.results.store import Store
from weighin.results.volume import in_words, knee_of, volume_of

AXES = ("memory.disk", "accuracy.acc")
REFERENCE = View(reference={"memory.disk": 1000.0, "accuracy.acc": 0.5})


def suites(size: float, right: int, n: int = 400, seed: int = 0) -> dict[str, list]:  # type: ignore[type-arg]
    """A variant with so many of `n` items right, the same ones first."""
    order = np.random.default_rng(seed).permutation(n)
    return {"memory": numbers([size], DISK), "accuracy": shares((order < right).astype(int), ACC)}


def weighed(path: Path, run: str, order: int, *variants: tuple[str, float, int]) -> Store:
    grid = {label: suites(size, right) for label, size, right in variants}
    return fill(path, grid, Setting(run=run, order=order))


def test_it_is_the_area_in_logarithms_of_bytes_and_points_of_shares(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", "r1", 0, ("base", 500.0, 320), ("small", 100.0, 280), ("off", 2000.0, 400))
    found = front(store, AXES, view=REFERENCE).volume
    large, small = 0.3 * math.log(2), 0.2 * math.log(10)
    assert found.value == pytest.approx(large + small - 0.2 * math.log(2))
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert found.reference == (1000.0, 0.5)
    units = View(reference={"memory.disk": 1000.0 * 1024, "accuracy.acc": 0.5})
    grid = {v: suites(s * 1024, r) for v, s, r in (("base", 500, 320), ("small", 100, 280), ("off", 2000, 400))}
    scaled = front(fill(tmp_path / "k.duckdb", grid), AXES, view=units).volume
    assert scaled.value == pytest.approx(found.value), "the unit of a size does not matter"


def test_without_a_reference_there_is_none_and_it_says_so(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", "r1", 0, ("base", 500.0, 320))
    found = front(store, AXES).volume
    assert found.value is None and "there is no reference point for memory.disk, accuracy.acc" in str(found.reason)
    assert in_words(found)[0].startswith("Hypervolume: none; there is no reference point")
    zero = front(store, AXES, view=View(reference={"memory.disk": 0.0, "accuracy.acc": 0.5})).volume
    assert zero.value is None and zero.reason == "memory.disk has a figure or a reference without a logarithm"


def test_nothing_changes_where_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, "r1", 0, ("base", 500.0, 320), ("small", 100.0, 280))
    store = weighed(path, "r2", 1, ("base", 500.0, 320), ("small", 100.0, 280))
    found = front(store, AXES, view=REFERENCE).volume
    assert found.against == "r1"
    assert (found.change, found.change_low, found.change_high) == pytest.approx((0, 0, 0), abs=1e-12)
    first = front(store, AXES, "r1", REFERENCE).volume
    assert first.change is None and first.no_change == "no earlier run of this spec"


def test_a_better_variant_changes_it_by_what_it_adds(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, "r1", 0, ("base", 500.0, 320))
    weighed(path, "r2", 1, ("base", 500.0, 320), ("small", 100.0, 280))
    store = weighed(path, "r3", 2, ("base", 500.0, 300), ("small", 100.0, 280))
    second = front(store, AXES, "r2", REFERENCE).volume
    assert second.against == "r1" and second.change == pytest.approx(0.2 * math.log(5))
    assert second.change_low and second.change_high and 0 < second.change_low < second.change < second.change_high
    third = front(store, AXES, view=REFERENCE).volume
    assert third.against == "r2" and third.change == pytest.approx(-0.05 * math.log(2))
    assert third.change_high is not None and third.change_high < 0, "paired items: a drop of 20 of 400 is not noise"
    against = front(store, AXES, view=replace(REFERENCE, against="r1")).volume
    assert against.against == "r1" and against.change == pytest.approx(0.2 * math.log(5) - 0.05 * math.log(2))
    with pytest.raises(WeighinError, match="no run 'r9'"):
        front(store, AXES, view=replace(REFERENCE, against="r9"))


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    grid = {"base": suites(500.0, 320)}
    fill(path, grid)
    unlike = {"base": {"task": {"version": 2}}}
    store = fill(path, grid, Setting(run="r2", order=1, protocols=unlike))
    found = front(store, AXES, view=REFERENCE).volume
    assert found.change is None and str(found.no_change).startswith("run r1 measured memory.disk on other items or")
    assert front(store, AXES, view=replace(REFERENCE, waive=["task"])).volume.change == pytest.approx(0, abs=1e-12)
    store = fill(path, grid, Setting(run="r3", order=2, machine="m2"))
    assert front(store, AXES, view=REFERENCE).volume.no_change == "run r2 was weighed on another machine"
    fill(path, {"base": {"memory": numbers([500.0], DISK), "accuracy": "broken"}}, Setting(run="r4", order=3))
    store = fill(path, grid, Setting(run="r5", order=4))
    assert front(store, AXES, view=REFERENCE).volume.no_change == "no variant of run r4 has all the figures"


def test_the_interval_of_the_change_holds_what_it_should() -> None:
    """Two variants improve by nothing: of 80 such pairs of runs, the interval holds 0 about 19 times in 20."""
    from weighin.results.volume import change_since

    rng = np.random.default_rng(4)
    held = 0
    for seed in range(80):
        hard = rng.normal(size=(200, 1))
        values = (hard + rng.normal(size=(200, 4)) + [0.8, 0.3, 0.8, 0.3] > 0).astype(float)
        made = [objective(SHARES, values, method="shares"), counted([500.0, 100.0, 500.0, 100.0])]
        now = [each.only([0, 1]) for each in made]
        found = volume_of(now, (0.3, 1000.0), drawn(now, 200, seed))
        changed = change_since(found, "before", made, 2, drawn(made, 200, seed))
        assert changed.change_low is not None and changed.change_high is not None
        held += changed.change_low <= 0 <= changed.change_high
    assert 0.88 <= held / 80 <= 1.0


def bend(n: int, share: float) -> list:  # type: ignore[type-arg]
    """Three variants: large and right, small and wrong, and one between them with so much of the quality."""
    order = np.random.default_rng(9).permutation(n)
    right = np.column_stack([order < 0.9 * n, order < 0.5 * n, order < share * n])
    return [objective(SHARES, right.astype(float), method="shares"), counted([1000.0, 100.0, 316.0])]


def test_a_front_names_its_knee(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", "r1", 0, ("base", 1000.0, 360), ("half", 316.0, 340), ("small", 100.0, 200))
    assert front(store, AXES).knee == "half"
    assert "Knee: half." in said_of(front(store, AXES))


def test_a_knee_is_shown_where_it_is_real() -> None:
    for n, share, expected in ((400, 0.85, 2), (400, 0.705, None), (30, 0.72, None)):
        made = bend(n, share)
        assert knee_of(made, drawn(made, 200)) == expected, (n, share)
    straight = bend(400, 0.69)  # below the chord
    assert knee_of(straight, drawn(straight, 200)) is None
    sizes = [counted([4.0, 2.0, 1.0]), replace(counted([1.0, 1.2, 4.0]), axis=replace(BYTES, metric="kv"))]
    assert knee_of(sizes, drawn(sizes, 20)) == 1, "without any noise a knee is one"
    negative = [objective(MEAN, [[1.0, 2.0, 4.0]]), counted([0.0, 1.0, 2.0])]
    assert knee_of(negative, drawn(negative, 20)) is None
