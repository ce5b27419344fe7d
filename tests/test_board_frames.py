"""What the page is made of: frames, fronts and charts of a real store."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.boards import HOSTILE, RUDE_REASON, weigh
from tests.stores import Grid, fill, machine, numbers, run_row, shares
from weighin.results.errors import WeighinError
from weighin.results.front import front
from weighin.results.importing import import_files
from weighin.results.records import Metric
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")

from weighin.leaderboard import charts, frames, fronts, tables
from weighin.leaderboard.frames import Board, Measure
from weighin.leaderboard.fronts import BEATEN, ON, POSSIBLY


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One run; nobody may change it."""
    path = tmp_path_factory.mktemp("board") / "w.duckdb"
    return weigh(path, "new", 1)


@pytest.fixture(scope="module")
def board(store: Store) -> Board:
    return frames.read_board(store, frames.runs(store)[0])


def measure(board: Board, name: str) -> Measure:
    return next(m for m in board.measures if m.name == name)


def test_words_hold_interval_n_and_marks(board: Board) -> None:
    _, words = tables.table(board, board.measures)
    assert words.loc["base"].tolist()[:4] == [
        "0.750 [0.705, 0.790] · n 400",
        "500 mJ/token · modelled · n 6",
        "14.0 [11.0, 17.0] ms · n 9",
        "1.91 MiB · n 1",
    ]
    assert words.loc["sim"].tolist()[:3] == ["failed", "abstained", "104 [101, 107] ms · dense kernel · n 9"]


def test_each_suite_leads_with_its_first_number(tmp_path: Path) -> None:
    gap, auroc = Metric("gap", "1", better="lower"), Metric("auroc", "1", better="lower")
    silent = Metric("silent", "1")
    grid: Grid = {
        label: {
            "accuracy": shares([1, 0] * 5, Metric("one/acc", "1")) + shares([1, 0] * 5, Metric("two/acc", "1")),
            "leaks": numbers([None], gap) + numbers([0.5] * 9, auroc),
            "quiet": numbers([None], silent),
        }
        for label in ("base", "small")
    }
    store = fill(tmp_path / "w.duckdb", grid)
    board = frames.read_board(store, frames.runs(store)[0])
    found = [m.name for m in frames.headlines(board, board.measures)]
    assert found == ["accuracy.one/acc", "accuracy.two/acc", "leaks.auroc", "quiet.silent"]


def test_a_styled_table_shows_words_and_keeps_numbers(board: Board) -> None:
    numbers, words = tables.table(board, board.measures)
    assert all(numbers.iloc[:, place].dtype == "float64" for place in range(6))
    shown = tables.styled(numbers, words)
    for _ in range(2):  # a page may be drawn twice
        body = shown._translate(False, False)["body"]
        cells = [[cell["display_value"] for cell in row if cell["type"] == "td"] for row in body]
        assert cells == words.to_numpy().tolist()


def test_figures_explain_what_they_lack(board: Board) -> None:
    rows = tables.figures(board).set_index(["variant", "suite"])
    assert rows.loc[("base", "energy"), "note"] == "modelled; no interval: all values are equal"
    assert rows.loc[("int8", "energy"), "note"] == f"abstained: {RUDE_REASON}"
    assert rows.loc[("base", "accuracy"), ["n", "unit", "source", "note"]].tolist() == [400, "1", "measured", ""]
    assert rows["value"].dtype == "float64"


def test_a_run_without_any_figure(tmp_path: Path) -> None:
    store = Store(tmp_path / "w.duckdb")
    store.add_machine(machine())
    store.start_run(run_row(), [("base", None)], [("base", "accuracy")])
    board = frames.read_board(store, frames.runs(store)[0])
    assert board.measures == [] and frames.axes(board) == ([], None, None)
    numbers, words = tables.table(board, [])
    assert words.loc["base"].tolist() == ["–", "–", "–", "–", "a stage failed"] and numbers.shape == (1, 5)
    assert tables.absences(board).iloc[0].tolist() == ["base", "accuracy", "all", "planned", "its turn has not come"]
    assert tables.figures(board).empty


def drawn(store: Store, board: Board, x: str, y: str) -> fronts.Front:
    return fronts.build(board, front(store, (x, y)), measure(board, x), measure(board, y))


def test_a_chart_is_drawn_of_data_and_fixed_words_only(store: Store, board: Board) -> None:
    found = drawn(store, board, "memory.disk", "accuracy.acc")
    spec = charts.pareto(found, log_x=True).to_dict()
    (data,) = spec.pop("datasets").values()
    assert {row["variant"] for row in data} == {"base", "int8", HOSTILE}
    assert HOSTILE not in str(spec)
    assert "'http" not in str(spec).replace(str(spec["$schema"]), "")


def test_every_class_has_a_colour_and_a_shape_of_its_own(store: Store, board: Board) -> None:
    classes = [fronts.ON, fronts.POSSIBLY, fronts.BEATEN]
    for kind in (charts.COLOURS, charts.SHAPES):
        assert list(kind) == classes and len(set(kind.values())) == 3
    for colour in charts.COLOURS.values():
        for ground in ("#ffffff", "#0e1117"):
            light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 3, "WCAG 2.2, success criterion 1.4.11"
    places = drawn(store, board, "memory.disk", "accuracy.acc").frame["place"].tolist()
    assert places == [fronts.POSSIBLY, fronts.ON, fronts.OUT, fronts.POSSIBLY]


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_limits_that_a_logarithmic_axis_cannot_show_are_clipped(store: Store, board: Board) -> None:
    found = drawn(store, board, "memory.disk", "accuracy.acc")
    found.frame.loc[0, "y_low"] = -0.5
    (data,) = charts.pareto(found, log_y=True).to_dict()["datasets"].values()
    lows = [row["y_low"] for row in data]
    assert min(lows) > 0 and len(lows) == 3
    (data,) = charts.pareto(found).to_dict()["datasets"].values()
    assert data[0]["y_low"] == -0.5


def test_a_logarithmic_axis_is_offered_where_it_can_be(store: Store, board: Board) -> None:
    frame = drawn(store, board, "memory.disk", "accuracy.acc").drawn
    assert fronts.positive(frame, "x") and not fronts.wide(frame, "x")
    frame.loc[0, "x"] = 0.0
    assert not fronts.positive(frame, "x")
    assert not fronts.positive(frame.iloc[:0], "x")


def test_of_a_crowd_only_the_front_stands_out(store: Store, board: Board) -> None:
    few = drawn(store, board, "memory.disk", "accuracy.acc")
    assert "'value': 0.1" not in str(charts.pareto(few).to_dict()) and "more, in the table" not in fronts.in_words(few)
    crowd = pd.concat([few.frame, *(few.frame.iloc[:1].assign(variant=f"v{n}") for n in range(charts.CROWD))])
    many = dataclasses.replace(few, frame=crowd.reset_index(drop=True))
    assert "'value': 0.1" in str(charts.pareto(many).to_dict())
    assert f"; and {charts.CROWD + 2 - fronts.TOLD} more, in the table." in fronts.in_words(many)


def test_no_run_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "w.duckdb")
    store.add_machine(machine())
    with pytest.raises(WeighinError, match="holds no run yet; run `weighin run` first"):
        frames.runs(store)


def test_an_imported_run_says_where_it_is_from(tmp_path: Path) -> None:
    store = weigh(tmp_path / "w.duckdb", "ours")
    told = {"results": {"t": {"acc,none": 0.5}}, "versions": {}, "lm_eval_version": "0.4.9", "date": 4_000_000_000,
            "n-samples": {"t": {"effective": 8}}, "config": {"model_args": f"pretrained={HOSTILE}"}}  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(told))
    list(import_files(store, [tmp_path / "r.json"]))
    ours, theirs = frames.runs(store)
    assert ours["run_id"] == "ours", "the page opens on our own newest run"
    board = frames.read_board(store, theirs)
    said = frames.run_sentence(board)
    assert "imported from lm-eval 0.4.9 (" in said and "r.json" in said and "on an unknown machine" in said
    assert "imported from lm-eval 0.4.9" in frames.run_title(theirs)
    _, words = tables.table(board, board.measures)
    assert words.iloc[0].tolist() == ["0.500 [0.215, 0.785] · imported · n 8", "–", "–", "–", "–", "imported"]
    assert tables.figures(board)["source"].tolist() == ["imported"] and tables.absences(board).empty


def test_names_of_points_that_lie_close_do_not_cover_each_other() -> None:
    frame = pd.DataFrame(
        [("near", POSSIBLY, 2.05, 0.80), ("front", ON, 2.0, 0.81), ("far", BEATEN, 5.0, 0.6), ("twin", ON, 2.01, 0.81)],
        columns=["variant", "place", "x", "y"],
    )
    assert charts.named(frame, (False, False)) == [False, True, True, True], "the front's names are always told"
    assert charts.named(frame.iloc[[0, 2]].reset_index(drop=True), (True, False)) == [True, True]
    many = pd.concat([frame] * 6, ignore_index=True)
    assert sum(charts.named(many, (False, False))) == 12
