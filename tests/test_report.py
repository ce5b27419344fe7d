"""Scores as the command line prints them: nothing is lost, whatever the width and the names."""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.stores import KL, TTFT, fill, numbers
from weighin.harness.report import scores
from weighin.results.records import Metric, Sample

P99 = Metric("ttft_p99", "s", better="lower", runtime=True)
WHY = "12 values: a p99 with an interval needs 368, in 5 groups or more"
LABELS = ("base", "openvino-int4", "a-label-that-is-longer-than-others", "重量-四位", "[bold]\x1b[31m")


@pytest.fixture
def lines(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    speed = [*numbers([0.5, 0.25, 0.125] * 4, TTFT), Sample("all", None, P99, reason=WHY)]
    store = fill(tmp_path / "w.duckdb", {label: {"speed": speed, "same": numbers([0.5] * 9, KL)} for label in LABELS})
    console = Console(width=request.param, file=io.StringIO())
    scores(console, store, "r1")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("lines", [80, 100, 200], indirect=True)
def test_every_reason_is_whole(lines: list[str], request: pytest.FixtureRequest) -> None:
    assert max(map(cell_len, lines)) <= request.node.callspec.params["lines"]
    text = " ".join(" ".join(lines).split())
    assert text.count(f"– abstained: {WHY}") == len(LABELS), text
    assert text.count("no interval: all values are equal") == len(LABELS), text
    for label in LABELS[:-1]:
        assert text.count(label) == 3
    assert "\x1b" not in text and text.count("[bold]�[31m") == 3, "a name is text and nothing else"


@pytest.mark.parametrize("lines", [80], indirect=True)
def test_values_stand_in_one_column(lines: list[str]) -> None:
    assert len({cell_len(line[: line.index("n=")]) for line in lines if "n=12" in line}) == 1
