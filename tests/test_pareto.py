"""The front against brute force, and what may not enter it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.stores import DISK, ENERGY, TTFT, Setting, fill, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.pareto import FrontRow, front, nondominated
from weighin.results.records import Metric, Sample

# small whole numbers, so that ties are common
clouds = st.tuples(st.integers(0, 25), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))
)


def _brute(points: np.ndarray) -> list[bool]:
    return [not any((q <= p).all() and (q < p).any() for q in points) for p in points]


@given(clouds)
def test_the_front_is_that_of_brute_force(points: np.ndarray) -> None:
    assert nondominated(points).tolist() == _brute(points)


@given(clouds, st.integers(0, 3))
def test_negating_an_objective_turns_its_direction(points: np.ndarray, axis: int) -> None:
    signs = np.ones(points.shape[1])
    signs[axis % points.shape[1]] = -1
    turned = points * signs
    expected = [not any((q * signs <= p * signs).all() and (q != p).any() for q in turned) for p in turned]
    assert nondominated(points).tolist() == expected


@given(clouds)
def test_equal_rows_stay_together(points: np.ndarray) -> None:
    mask = nondominated(np.concatenate([points, points]))
    assert mask[: len(points)].tolist() == mask[len(points) :].tolist() == nondominated(points).tolist()


def _suites(right: int, seconds: float) -> dict[str, list[Sample]]:
    return {"accuracy": shares([1] * right + [0] * (10 - right)), "latency": numbers([seconds] * 3, TTFT)}


def _of(rows: list[FrontRow]) -> dict[str, tuple[bool, tuple[str, ...], str | None]]:
    return {row.variant: (row.on_front, row.dominated_by, row.reason) for row in rows}


def test_a_front_with_all_that_may_not_enter(tmp_path: Path) -> None:
    grid = {
        "base": _suites(8, 0.3),
        "small": _suites(7, 0.1),
        "slow": _suites(7, 0.4),
        "twin": _suites(8, 0.3),
        "fake": _suites(9, 0.05),
        "shy": {"accuracy": shares([1] * 10), "latency": "no clock"},
        "bare": {"accuracy": shares([1] * 10)},
    }
    store = fill(tmp_path / "w.duckdb", grid, Setting(forms={"fake": "simulated"}))
    rows = front(store, "latency.ttft", "accuracy.acc")
    assert [row.variant for row in rows] == list(grid)
    assert _of(rows) == {
        "base": (True, (), None),
        "small": (True, (), None),
        "slow": (False, ("base", "small", "twin"), None),
        "twin": (True, (), None),
        "fake": (False, (), "latency.ttft: dense kernel: the runtime simulates this format"),
        "shy": (False, (), "latency.ttft: no clock"),
        "bare": (False, (), "latency.ttft: not measured"),
    }
    assert (rows[1].x, rows[1].y) == (pytest.approx(0.1), pytest.approx(0.7))
    swapped = front(store, "accuracy.acc", "latency.ttft")
    assert _of(swapped) | {"x": ()} == _of(rows) | {"x": ()}


def test_modelled_figures_do_not_enter(tmp_path: Path) -> None:
    grid = {
        label: {"energy": numbers([joule] * 2, ENERGY, source), "memory": numbers([size], DISK)}  # type: ignore[arg-type]
        for label, joule, size, source in [("a", 1.0, 9.0, "counter"), ("b", 0.1, 1.0, "modelled")]
    }
    rows = front(fill(tmp_path / "w.duckdb", grid), "energy.energy", "memory.disk")
    assert _of(rows) == {"a": (True, (), None), "b": (False, (), "energy.energy: modelled")}


def test_only_the_machine_of_the_run_counts(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    fill(path, {"base": _suites(8, 0.3), "small": _suites(7, 0.1)})
    store = fill(path, {"base": _suites(8, 0.3), "small": _suites(7, 0.1)}, Setting(run="r2", machine="m2", order=1))
    store.set_cell("r2", "small", "latency", status="ok", evaluation_id="r1-small-latency", reused=True)
    rows = _of(front(store, "latency.ttft", "accuracy.acc"))
    assert rows["base"] == (True, (), None)
    assert rows["small"] == (False, (), "latency.ttft: measured on another machine")
    assert _of(front(store, "latency.ttft", "accuracy.acc", run="r1"))["small"] == (True, (), None)


def test_wrong_metrics_say_what_is_allowed(tmp_path: Path) -> None:
    tasks = [Sample("a", 1.0, Metric("arc/acc", "1")), Sample("b", 1.0, Metric("piqa/acc", "1"))]
    length = numbers([1.0, 2.0], Metric("length", "token", better="none"))
    store = fill(tmp_path / "w.duckdb", {"base": {**_suites(8, 0.3), "tasks": tasks, "odd": length}})
    for name, message in [
        ("latency.tft", "Did you mean 'latency.ttft'"),
        ("latency", "SUITE.METRIC"),
        ("tasks.acc", "tasks.arc/acc, tasks.piqa/acc"),
        ("odd.length", "neither way is better"),
    ]:
        with pytest.raises(WeighinError, match=message):
            front(store, name, "accuracy.acc")
    assert front(store, "tasks.piqa/acc", "accuracy.acc")[0].on_front
