"""Exports read back equal, and numbers read as a person wants them."""

import csv
import json
from pathlib import Path

import duckdb
import pytest

from tests.stores import KL, evaluation, fill, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.export import export, markdown
from weighin.results.records import Metric, Sample
from weighin.results.render import digits, interval, quantity
from weighin.results.store import Store

ODD = 'a "quoted", | piped\nand *broken* reason'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(
        tmp_path / "w.duckdb",
        {
            "base": {"accuracy": shares([1, 0, 1]), "kl": numbers([0.1, None], KL)},
            "small": {"accuracy": shares([1, 1, 1]), "kl": ODD},
        },
    )


def test_csv_keeps_quotes_and_line_breaks(store: Store, tmp_path: Path) -> None:
    path = export(store, tmp_path / "scores.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["base", "base", "small", "small"]
    assert rows[3]["reason"] == ODD and rows[3]["value"] == ""
    assert float(rows[0]["value"]) == 2 / 3


def test_parquet_and_json_equal_the_view(store: Store, tmp_path: Path) -> None:
    expected = store.rows("select * from scores order by position, suite, metric")
    assert json.loads(export(store, tmp_path / "s.json").read_text()) == expected
    path = export(store, tmp_path / "s.parquet")
    cursor = duckdb.connect().execute("select * from read_parquet(?)", [str(path)])
    names = [column[0] for column in cursor.description or ()]
    assert [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] == expected


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json", ".md"])
@pytest.mark.parametrize(("what", "rows"), [("scores", 4), ("samples", 8), ("variants", 2)])
def test_everything_goes_into_every_format(store: Store, tmp_path: Path, ending: str, what: str, rows: int) -> None:
    path = export(store, tmp_path / f"x{ending}", what=what)  # type: ignore[arg-type]
    if ending == ".md":
        assert len(path.read_text().splitlines()) == rows + 2
    else:
        assert duckdb.connect().execute(f"select count(*) from '{path}'").fetchall() == [(rows,)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.duckdb", path.name]


def test_markdown_cells_are_plain_text() -> None:
    table = markdown([{"a": ODD, "b": None, "c": 1 / 3, "d": {"k": 1}, "e": True}])
    assert table.splitlines()[2] == '| a "quoted", \\| piped and \\*broken\\* reason |  | 0.333333 | {"k": 1} | true |'
    assert markdown([]) == ""


def test_what_cannot_be_exported_is_said(store: Store, tmp_path: Path) -> None:
    for path, what, message in [
        (tmp_path / "x.xlsx", "scores", r"no format for '.xlsx'. There is: .csv, .parquet"),
        (tmp_path / "x.csv", "runs", "There is: scores, samples, variants"),
        (tmp_path / "no" / "x.csv", "scores", "cannot be written"),
        (tmp_path / "no" / "x.parquet", "scores", "cannot be written"),
        (tmp_path / "no" / "x.md", "scores", "cannot be written"),
    ]:
        with pytest.raises(WeighinError, match=message):
            export(store, path, what=what)  # type: ignore[arg-type]
    with pytest.raises(WeighinError, match="no run 'r7'"):
        export(store, tmp_path / "x.csv", run="r7")
    assert not (tmp_path / "x.csv").exists()


def test_samples_of_a_run_name_their_variant(store: Store, tmp_path: Path) -> None:
    store.add_evaluation(evaluation("of no run"), [Sample("x", 1.0, Metric("acc", "1"))])
    rows = json.loads(export(store, tmp_path / "x.json", what="samples").read_text())
    assert {(r["variant"], r["suite"]) for r in rows} == {("base", "accuracy"), ("base", "kl"), ("small", "accuracy")}
    assert len(rows) == 8


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.412, "s", "412 ms"),
        (1.5, "s", "1.50 s"),
        (0.0000032, "s", "3.20 µs"),
        (0.00999, "s", "9.99 ms"),
        (95.25, "s", "95.2 s"),
        (0.9999, "s", "1.00 s"),
        (12 * 1024**2, "B", "12.0 MiB"),
        (1023, "B", "1,023 B"),
        (4096, "B/token", "4.00 KiB/token"),
        (0.0031, "J/token", "3.10 mJ/token"),
        (5200.0, "J", "5.20 kJ"),
        (38.71, "token/s", "38.7 token/s"),
        (0.75, "1", "0.750"),
        (0.99949, "1", "0.999"),
        (1234567, "1", "1,234,567"),
        (0.0, "s", "0 s"),
        (-0.0315, "s", "-31.5 ms"),
        (0.0001234, "1", "1.23e-04"),
        (None, "s", "–"),
        (float("nan"), "s", "–"),
    ],
)
def test_quantities(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_an_interval_shares_one_step() -> None:
    assert interval(0.412, 0.398, 1.02, "s") == "412 [398, 1,020] ms"
    assert interval(0.75, 0.7, 0.8, "1") == "0.750 [0.700, 0.800]"
    assert interval(0.412, None, None, "s") == "412 ms"
    assert interval(None, None, None, "s") == "–"
    assert digits(float("inf")) == "inf"
