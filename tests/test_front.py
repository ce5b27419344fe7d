"""A front of a real store: classes, what may not enter, what a wrong question is told."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.stores import (
    ACC,
    DISK,
    ENERGY,
    KL,
    TTFT,
    Setting,
    fill,
    numbers,
    shares,
)
from weighin.results.database import writing
from weighin.results.errors import WeighinError
from weighin.results.front import Front, View, front
from weighin.results.records import Metric, Sample

AXES = ("memory.disk", "accuracy.acc")


def suites(right: int, size: float, seconds: float | None = None) -> dict[str, list[Sample]]:
    """So many of 100 items right, the first ones; bytes on disk; seconds."""
    timed = {} if seconds is None else {"latency": numbers([seconds] * 3, TTFT)}
    return {"accuracy": shares([1] * right + [0] * (100 - right)), "memory": numbers([size], DISK)} | timed


def places(found: Front) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {row.variant: (row.place, row.by) for row in found.rows}


def test_the_three_classes_and_those_left_out(tmp_path: Path) -> None:
    grid = {
        "base": suites(90, 1000),
        "small": suites(80, 300),
        "twin": suites(80, 300),
        "near": suites(79, 400),
        "worse": suites(60, 400),
        "large": suites(89, 2000),
        "shy": {"accuracy": shares([1] * 100), "memory": "no disk"},
        "bare": {"accuracy": shares([1] * 100)},
    }
    found = front(fill(tmp_path / "w.duckdb", grid), AXES)
    assert [row.variant for row in found.rows] == list(grid)
    assert places(found) == {
        "base": ("on", ()),
        "small": ("on", ()),
        "twin": ("on", ()),
        "near": ("possibly", ("small", "twin")),
        "worse": ("dominated", ("small",)),
        "large": ("possibly", ("base",)),
        "shy": ("out", ()),
        "bare": ("out", ()),
    }
    rows = {row.variant: row for row in found.rows}
    assert rows["shy"].reason == "memory.disk: no disk" and rows["bare"].reason == "memory.disk: not measured"
    assert rows["worse"].p is not None and rows["worse"].p < 1e-5 and rows["worse"].why.startswith("by small, p = ")
    assert rows["base"].values == pytest.approx((1000, 0.9)) and rows["base"].limits[0] is None
    assert rows["base"].stability == 1.0 and rows["shy"].stability is None and rows["bare"].values == (None, 1.0)


def test_a_simulated_format_has_no_runtime_figure(tmp_path: Path) -> None:
    grid = {"base": suites(90, 1000, 0.1), "fake": suites(99, 10, 0.01)}
    store = fill(tmp_path / "w.duckdb", grid, Setting(forms={"fake": "simulated"}))
    timed = front(store, ("latency.ttft", "accuracy.acc"))
    assert places(timed) == {"base": ("on", ()), "fake": ("out", ())}
    assert timed.rows[1].reason == "latency.ttft: dense kernel: the runtime simulates this format"
    assert places(front(store, AXES))["fake"] == ("on", ()), "its bytes and its answers are real"


def test_a_missing_figure_is_never_zero(tmp_path: Path) -> None:
    """Less is better in both: a missing figure taken for 0 would beat everybody."""
    lost = [Sample(f"item{i}", None, KL, reason="broken") for i in range(9)]
    grid = {
        "base": {"memory": numbers([1000], DISK), "s": numbers([0.1] * 9, KL)},
        "small": {"memory": numbers([10], DISK), "s": lost},
    }
    found = front(fill(tmp_path / "w.duckdb", grid), ("memory.disk", "s.kl"))
    assert places(found) == {"base": ("on", ()), "small": ("out", ())}
    assert found.rows[1].reason == "s.kl: broken" and found.rows[1].values == (10.0, None)


def test_modelled_figures_do_not_enter(tmp_path: Path) -> None:
    grid = {
        label: {"energy": numbers([joule] * 2, ENERGY, source), "memory": numbers([size], DISK)}  # type: ignore[arg-type]
        for label, joule, size, source in [("a", 1.0, 9.0, "counter"), ("b", 0.1, 1.0, "modelled")]
    }
    found = front(fill(tmp_path / "w.duckdb", grid), ("energy.energy", "memory.disk"))
    assert places(found) == {"a": ("on", ()), "b": ("out", ())} and found.rows[1].reason == "energy.energy: modelled"


def test_only_the_machine_of_the_run_counts(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    grid = {"base": suites(80, 1000), "small": suites(70, 300)}
    fill(path, grid)
    store = fill(path, grid, Setting(run="r2", machine="m2", order=1))
    store.set_cell("r2", "small", "accuracy", status="ok", evaluation_id="r1-small-accuracy", reused=True)
    found = front(store, AXES)
    assert places(found) == {"base": ("on", ()), "small": ("out", ())}
    assert found.rows[1].reason == "accuracy.acc: measured on another machine"
    assert places(front(store, AXES, "r1"))["small"] == ("on", ())


def test_only_figures_of_one_checkpoint_count(tmp_path: Path) -> None:
    """A label whose accuracy was measured on another checkpoint than its size has no place."""
    store = fill(tmp_path / "w.duckdb", {"base": suites(80, 1000), "small": suites(70, 300)})
    store.set_cell("r1", "small", "accuracy", status="ok", evaluation_id="r1-base-accuracy", reused=True)
    found = front(store, AXES)
    assert places(found) == {"base": ("on", ()), "small": ("out", ())}
    assert found.rows[1].reason == "its figures belong to two checkpoints"


def test_a_direction_is_turned_by_negating_the_objective(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([0.0, 2.0, 1.9, -2.0], size=(60, 4))
    right = rng.uniform(size=(60, 4)) < [0.9, 0.3, 0.28, 0.4]
    gain, loss = Metric("gain", "nat", better="higher"), Metric("gain", "nat", better="lower")
    ways = (values, gain, right, ACC), (-values, loss, right, ACC), (values, gain, ~right, Metric("acc", "1", "lower"))
    grids = [
        {f"v{j}": {"s": numbers(list(x[:, j]), metric), "t": shares(y[:, j], share)} for j in range(4)}
        for x, metric, y, share in ways
    ]
    found = [front(fill(tmp_path / f"{i}.duckdb", grid), ("s.gain", "t.acc")).rows for i, grid in enumerate(grids)]
    assert {row.place for row in found[0]} == {"on", "possibly", "dominated"}
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert (a.place, a.by, a.stability) == (b.place, b.by, b.stability)
            assert a.p == pytest.approx(b.p)


def test_an_axis_that_excludes_nobody_says_why(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": suites(90, 1000, 0.1), "slow": suites(50, 2000, 0.9)})
    found = front(store, ("latency.ttft", "accuracy.acc"))
    assert places(found) == {"base": ("on", ()), "slow": ("possibly", ("base",))}
    assert found.notes == ("latency.ttft cannot show anybody dominated: not interleaved",)
    assert places(front(store, AXES))["slow"] == ("dominated", ("base",))


def test_what_was_measured_on_other_items_is_noted(tmp_path: Path) -> None:
    grid = {"base": suites(90, 1000), "small": {**suites(50, 2000), "accuracy": shares([1] * 20 + [0] * 70)}}
    found = front(fill(tmp_path / "w.duckdb", grid), AXES)
    assert places(found)["small"] == ("possibly", ("base",))
    assert found.notes == ("accuracy.acc: not all variants were measured on the same items under the same protocol",)


@pytest.mark.parametrize(("scorer", "alike"), [("0.4.13", True), ("0.4.14", False)])
def test_what_serves_may_differ_between_environments_and_what_scores_may_not(
    scorer: str, alike: bool, tmp_path: Path
) -> None:
    """A deployed variant is compared in the runtime that serves it; another lm-eval asks other questions."""
    here = {"packages": {"lm_eval": "0.4.13", "transformers": "5.17.0"}}
    there = {"packages": {"lm_eval": scorer, "transformers": "5.5.4"}, "environment": {"name": "openvino", "key": "k"}}
    grid = {"base": suites(90, 1000), "small": suites(50, 2000)}
    found = front(fill(tmp_path / "w.duckdb", grid, Setting(protocols={"base": here, "small": there})), AXES)
    noted = "accuracy.acc: not all variants were measured on the same items under the same protocol"
    assert (noted in found.notes) is not alike
    assert places(found)["small"] == (("dominated" if alike else "possibly"), ("base",))


def test_what_is_counted_needs_no_test(tmp_path: Path) -> None:
    cache = Metric("kv_per_token", "B/token", better="lower", runtime=True)
    sizes = {"base": (1000, 64), "small": (300, 64), "slim": (400, 16), "twin": (300, 64)}
    grid = {v: {"memory": [*numbers([disk], DISK), *numbers([kv], cache)]} for v, (disk, kv) in sizes.items()}
    found = front(fill(tmp_path / "w.duckdb", grid), ("memory.disk", "memory.kv_per_token"))
    assert places(found) | {"base": ()} == {"base": (), "small": ("on", ()), "slim": ("on", ()), "twin": ("on", ())}
    assert (found.rows[0].place, found.rows[0].p, found.rows[0].why) == ("dominated", 0.0, "by small, as counted")
    assert [row.stability for row in found.rows] == [0.0, 1.0, 1.0, 1.0] and found.notes == ()


def test_many_that_beat_a_row_are_counted(tmp_path: Path) -> None:
    grid = {f"v{i}": suites(80, 1000) for i in range(6)} | {"last": suites(80, 1001)}
    last = front(fill(tmp_path / "w.duckdb", grid), AXES).rows[-1]
    assert last.by == tuple(f"v{i}" for i in range(6)) and last.why == "beaten by v0, v1, v2, v3 and 2 more"


def test_a_tolerance_makes_like_figures_equal(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": suites(80, 1000), "small": suites(79, 300)})
    assert places(front(store, AXES))["base"] == ("on", ())
    near = front(store, AXES, view=View(epsilon={"accuracy.acc": 0.01}))
    assert places(near) == {"base": ("possibly", ("small",)), "small": ("on", ())}
    assert places(front(store, AXES, view=View(epsilon={"accuracy.acc": 0.1})))["base"] == ("dominated", ("small",))
    assert near.axes[1].epsilon == 0.01 and near.axes[0].epsilon == 0.0


def test_the_spec_of_the_run_says_how_its_fronts_are_looked_at(tmp_path: Path) -> None:
    path, grid = tmp_path / "w.duckdb", {"base": suites(80, 1000), "small": suites(79, 300)}
    settings = {"epsilon": {"accuracy.acc": 0.1, "gone.metric": 1.0}, "reference": {"memory.disk": 4000, "acc": "x"}}
    for run, said in (("r1", settings), ("r2", "words"), ("r3", {"epsilon": ["a list"]})):
        store = fill(path, grid, Setting(run=run))
        with writing(path, 10) as con:
            con.execute("update runs set spec = ? where run_id = ?", [json.dumps({"front": said}), run])
    assert places(front(store, AXES, "r1"))["base"] == ("dominated", ("small",))
    assert places(front(store, AXES, "r1", View(epsilon={"accuracy.acc": 0.0})))["base"] == ("on", ())
    view = View(reference={"accuracy.acc": 0.5})
    volume = front(store, AXES, "r1", view).volume
    assert volume.value is not None and volume.reference == (4000.0, 0.5)
    for run in ("r2", "r3"):
        assert places(front(store, AXES, run))["base"] == ("on", ())


def test_wrong_questions_say_what_is_allowed(tmp_path: Path) -> None:
    tasks = [Sample("a", 1.0, Metric("arc/acc", "1")), Sample("b", 1.0, Metric("piqa/acc", "1"))]
    length = numbers([1.0, 2.0], Metric("length", "token", better="none"))
    grid = {
        "base": {**suites(8, 30, 0.1), "tasks": tasks, "odd": length},
        "small": {"tasks": [Sample("a", 1.0, Metric("arc/acc", "B"))]},
    }
    store = fill(tmp_path / "w.duckdb", grid)
    for name, message in [
        ("latency.tft", "Did you mean 'latency.ttft'"),
        ("latency", "SUITE.METRIC"),
        ("tasks.acc", "tasks.arc/acc, tasks.piqa/acc"),
        ("tasks.arc/acc", "is not the same in all variants"),
        ("odd.length", "neither way is better"),
        ("accuracy.acc", "accuracy.acc: is an axis twice"),
    ]:
        with pytest.raises(WeighinError, match=message):
            front(store, (name, "accuracy.acc"))
    assert front(store, ("tasks.piqa/acc", "accuracy.acc")).rows[0].place == "on"
    for view in (View(epsilon={"latency.ttft": 1.0}), View(reference={"latency.ttft": 1.0})):
        with pytest.raises(WeighinError, match=r"no axis of this front for the .* of 'latency.ttft'"):
            front(store, AXES, view=view)
    with pytest.raises(WeighinError, match="no run 'r7'"):
        front(store, AXES, "r7")


def test_a_front_of_nobody(tmp_path: Path) -> None:
    grid = {"base": {"accuracy": shares([1, 0]), "memory": "no disk"}, "small": {"memory": numbers([1.0], DISK)}}
    found = front(fill(tmp_path / "w.duckdb", grid), AXES)
    assert [row.place for row in found.rows] == ["out", "out"]
    assert found.volume.reason == "no variant has all the figures" and found.knee is None
    json.dumps([row.values for row in found.rows])
