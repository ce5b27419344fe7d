"""`weighin front` as it is called: 80 columns of text, JSON, and one clear message for a wrong option."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stores import DISK, TTFT, Setting, fill, numbers, shares
from weighin.harness.cli import main
from weighin.results.store import Store

HOSTILE = "[red]<b>&[/red]"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs of variants with every class; nobody may change it."""
    path = tmp_path_factory.mktemp("verb") / "w.duckdb"
    given = {"base": (90, 1 << 20, 0.1), HOSTILE: (80, 300 << 10, 0.05), "near": (79, 400 << 10, 0.06)}
    given |= {"worse-than-all-of-them": (50, 500 << 10, 0.2)}
    grid: Any = {
        label: {
            "accuracy": shares([1] * right + [0] * (100 - right)),
            "memory": numbers([size], DISK),
            "latency": numbers([seconds + i / 1000 for i in range(7)], TTFT),
        }
        for label, (right, size, seconds) in given.items()
    }
    fill(path, grid)
    return fill(path, {**grid, "bare": {"accuracy": "no <i>task</i>"}}, Setting(run="r2", order=1))


def told(store: Store, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["front", "--store", str(store.path), "--y", "accuracy.acc", *arguments]) == 0
    return capsys.readouterr().out


def test_the_classes_stand_one_below_the_other(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(store, capsys, "--x", "memory.disk", "--reference", "memory.disk=2e6,accuracy.acc=0.4")
    lines = out.splitlines()
    assert lines[:3] == ["Pareto front of run r2", "  x  memory.disk ↓", "  y  accuracy.acc ↑"]
    heads = [lines.index(name) for name in ("on the front", "possibly on it", "confidently dominated", "left out")]
    assert heads == sorted(heads) and max(map(len, lines)) <= 80
    assert lines[heads[0] + 2].split() == [HOSTILE, "300", "KiB", "0.800", "[0.711,", "0.867]", "100", "%"]
    assert lines[heads[1] + 1].startswith("  near ") and lines[heads[1] + 2] == f"      beaten by {HOSTILE}"
    assert f"      by {HOSTILE}, p = " in out
    assert "  bare: memory.disk: not measured; accuracy.acc: no <i>task</i>" in lines
    assert any(line.startswith("Hypervolume: 0.") for line in lines)
    assert "Its change since run r1: 0 [0, 0]." in lines


def test_more_objectives_and_what_an_axis_cannot_tell(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(
        store, capsys, "--x", "memory.disk", "--z", "latency.ttft", "--epsilon", "accuracy.acc=0.02", "--run", "r1"
    )
    assert "  y  accuracy.acc ↑, equal within 0.02\n  z  latency.ttft ↓\n" in out
    assert "latency.ttft cannot show anybody dominated: not interleaved." in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_front_of_nobody_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid: Any = {"base": {"accuracy": shares([1, 0]), "memory": "no disk"}, "small": {"memory": numbers([1], DISK)}}
    out = told(fill(tmp_path / "w.duckdb", grid), capsys, "--x", "memory.disk")
    assert "\n\nleft out\n  base: memory.disk: no disk\n  small: accuracy.acc: not measured\n" in out
    assert "Hypervolume: none; no variant has all the figures.\n" in out


def test_json_holds_everything_in_base_units(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(store, capsys, "--x", "memory.disk", "--json", "--epsilon", "memory.disk=10"))
    assert list(found) == ["run", "axes", "variants", "hypervolume", "knee", "notes"]
    assert [(axis["name"], axis["epsilon"]) for axis in found["axes"]] == [("memory.disk", 10.0), ("accuracy.acc", 0.0)]
    rows = {row["variant"]: row for row in found["variants"]}
    assert rows["base"]["place"] == "on" and rows["base"]["values"] == [1 << 20, 0.9]
    assert rows["worse-than-all-of-them"]["by"] == [HOSTILE] and rows["worse-than-all-of-them"]["p"] < 0.001
    assert rows["bare"]["place"] == "out" and rows["bare"]["values"] == [None, None]
    assert found["hypervolume"]["value"] is None and "reference point" in found["hypervolume"]["reason"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epsilon", "accuracy.acc"], "--epsilon: should read METRIC=VALUE, as in accuracy.acc=0.01"),
        (["--epsilon", "accuracy.acc=-1"], "a number >= 0 (got 'accuracy.acc=-1')"),
        (["--reference", "accuracy.acc=nan"], "--reference: should read METRIC=VALUE"),
        (["--reference", "accuracy.acc=1,accuracy.acc=2"], "--reference: accuracy.acc is given twice"),
        (["--reference", "acuracy.acc=1"], "Did you mean 'accuracy.acc'?"),
        (["--draws", "1"], "--draws: should be between 2 and 10000 (got 1)"),
        (["--seed", "-1"], "--seed: should be 0 or more (got -1)"),
        (["--z", "accuracy.acc"], "metric accuracy.acc: is an axis twice"),
        (["--against", "r9"], "no run 'r9'"),
    ],
)
def test_a_wrong_option_is_one_message(
    store: Store, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    command = ["front", "--store", str(store.path), "--x", "memory.disk", "--y", "accuracy.acc", *given]
    assert main(command) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == ""


def test_both_axes_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["front", "--x", "memory.disk"])
    assert "--y" in capsys.readouterr().err
