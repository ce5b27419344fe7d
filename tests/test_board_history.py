"""The page's history: the series of a metric with its marks, as a chart, in words and as a table."""

from pathlib import Path

import pytest

from tests.boards import said, show, table
from tests.stores import Setting, fill, numbers, shares
from tests.test_night import RATIO
from weighin.results import ledger
from weighin.results.database import writing
from weighin.results.history import history
from weighin.results.store import Store
from weighin.results.watch import Watched

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")

HOSTILE = "<script>alert(1)</script> **bold**"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four nights; the dtype changed on the third, an alarm was raised on the fourth."""
    path = tmp_path_factory.mktemp("nights") / "w.duckdb"
    for night, ratio in enumerate([1.0, 1.1, 1.05, 1.5]):
        grid = {"small": {"accuracy": shares([1, 0, 1]), "latency": numbers([ratio], RATIO)}}
        protocol = {"small": {"dtype": "float16" if night > 1 else "float32"}}
        store = fill(path, grid, Setting(run=f"n{night}", order=24 * night, protocols=protocol))
    ledger.keep(store, "n3", [], watched=[Watched("series", "small", "latency", "ratio", "fail", HOSTILE)])
    return store


def test_the_frame_has_a_row_a_night_with_its_mark(store: Store) -> None:
    from weighin.leaderboard.history import ALARM, CHANGED, PLAIN, chart, frame, in_words

    (series,) = history(store, "latency.ratio")
    made = frame(series)
    assert made["value"].tolist() == [1.0, 1.1, 1.05, 1.5]
    assert made["mark"].tolist() == [PLAIN, PLAIN, CHANGED, ALARM]
    assert made["what"].tolist() == ["", "", "protocol.dtype: float32 -> float16", HOSTILE]
    assert in_words(series) == "latency.ratio of small: 4 nights, 1 with a change, 1 with an alarm."
    drawn = chart(series).to_dict()
    assert {each["mark"]["type"] for each in drawn["layer"]} == {"line", "rule", "point"}


def test_the_page_draws_the_series_that_is_chosen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = show(store.path, monkeypatch, "nightly", metric="latency.ratio")
    assert not page.exception
    assert "latency.ratio of small: 4 nights, 1 with a change, 1 with an alarm." in said(page)
    nights = table(page, "value")
    assert nights["run"].tolist() == ["n3", "n2", "n1", "n0"]
    assert nights["value"].iloc[0] == "1.50 · no interval · n 1"
    alarm = table(page, "what had changed")
    assert alarm[["variant", "metric", "why"]].iloc[0].tolist() == ["small", "latency.ratio", HOSTILE]
    assert "4 runs of this spec on this class of machine, 0 with a changed fingerprint." in said(page)
    assert not [text for text in page.markdown if "script" in text.value]


def test_the_overview_holds_a_run_against_the_last_green_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    for night in range(2):
        store = fill(path, {"small": {"accuracy": shares([1, 0, 1])}}, Setting(run=f"n{night}", order=24 * night))
    ledger.keep(store, "n0", [], watched=[Watched("exact", "small", "accuracy", "acc", "pass", "as before")])
    with writing(path, 10) as con:
        con.execute("update runs set packages = '{\"duckdb\": \"2\"}' where run_id = 'n1'")
    page = show(path, monkeypatch)
    assert not page.exception and "Held against run n0." in said(page)
    assert table(page, "then").iloc[0].tolist() == ["packages.duckdb", "1", "2"]


def test_the_series_end_with_the_run_that_the_page_shows(store: Store, tmp_path: Path) -> None:
    (series,) = history(store, "latency.ratio", run="n1")
    assert [night.run for night in series.nights] == ["n0", "n1"]
