"""The page on a real store: what it must show, and that text from outside stays text."""

from typing import Any

import pytest

from tests.boards import GRID, HOSTILE, RUDE_REASON, show, weigh
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs; nobody may change it."""
    path = tmp_path_factory.mktemp("board") / "w.duckdb"
    weigh(path, "old", 0, rules=[])
    return weigh(path, "new", 1)


def said(page: Any) -> str:
    """What `st.text` printed."""
    return "\n".join(text.value for text in page.text)


@pytest.fixture
def page(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    page = show(store.path, monkeypatch)
    assert not page.exception
    return page


def test_the_page_says_which_run_and_shows_the_newest(page: Any) -> None:
    run = page.selectbox[0]
    assert [option.rsplit(" · ", 1)[1] for option in run.options] == ["new", "old"]
    assert page.text[0].value.startswith("Run new of spec spec.yaml, started 2026-01-01 01:00 UTC, complete, on cpu")


def test_the_table_has_a_row_a_variant_and_a_column_a_metric(page: Any) -> None:
    table = page.dataframe[0].value
    assert list(table.index) == list(GRID)
    headers = ["acc [1] ↑", "energy [J/token] ↓", "ttft [s] ↓", "disk [B] ↓"]
    assert [name for suite, name in table.columns if suite != "identity"] == headers
    assert [name for suite, name in table.columns if suite == "identity"] == [
        "disk [B]", "memory [B]", "form", "kernel", "made by",
    ]  # fmt: skip
    assert table["memory", "disk [B] ↓"].tolist() == [2_000_000, 600_000, 500_000, 3_000_000]
    assert table["accuracy", "acc [1] ↑"].isna().tolist() == [False, False, True, False]


def test_every_absence_has_its_reason(page: Any) -> None:
    rows = [tuple(row) for row in page.dataframe[1].value.itertuples(index=False)]
    assert rows == [
        ("sim", "accuracy", "all", "failed", "out of memory"),
        ("int8", "energy", "all", "abstained", RUDE_REASON),
        ("sim", "energy", "all", "abstained", "no counter"),
        (HOSTILE, "energy", "all", "abstained", "no counter"),
    ]


def test_the_front_stands_beside_its_chart_in_words_and_as_a_table(page: Any) -> None:
    assert len(page.get("vega_lite_chart") or page.get("arrow_vega_lite_chart")) == 1
    assert "On the front of accuracy.acc against memory.disk: int8.\n" in said(page)
    assert f"Possibly on it: base (beaten by int8); {HOSTILE} (beaten by int8).\n" in said(page)
    assert "Left out: sim (accuracy.acc: out of memory)." in said(page)
    rows = page.dataframe[2].value.set_index("variant")
    assert rows.loc["int8", "memory.disk"] == "586 KiB · n 1"
    assert rows.loc["base", ["place", "why"]].tolist() == ["possibly on it", "beaten by int8"]
    assert rows.loc["int8", "stable"] == "100 %" and rows.loc["sim", "stable"] == "–"
    assert "Hypervolume: none; there is no reference point" in said(page)
    assert rows.loc["sim", "why"] == "accuracy.acc: out of memory"


def test_other_axes_can_be_chosen(page: Any) -> None:
    across = next(box for box in page.selectbox if box.label == "Across")
    page = across.select("latency.ttft").run()
    assert not page.exception
    assert "accuracy.acc against latency.ttft: base." in said(page)
    assert "latency.ttft cannot show anybody dominated: not interleaved." in said(page)
    assert "dense kernel: the runtime simulates this format" in said(page)
    up = next(box for box in page.selectbox if box.label == "Up")
    page = up.select("latency.ttft").run()
    assert not page.exception and "A front needs two different metrics" in said(page)


def test_the_gate_speaks_at_the_top_and_rule_by_rule(page: Any) -> None:
    assert [box.value for box in page.error] == ["The release fails: at least one gate rule does."]
    assert "accuracy.acc: int8 against base, margin 0.05\n" in said(page)
    assert f"memory.disk: {HOSTILE} against base, margin 0\n2.86 MiB against 1.91 MiB" in said(page)
    assert "accuracy.acc: sim against base, margin 0.02, watched only\nsim: accuracy failed: out of memory" in said(
        page
    )
    verdicts = [text.value for text in page.markdown if "-badge[" in text.value]
    assert [any(word in text for text in verdicts) for word in ("pass", "fail", "inconclusive")] == [True] * 3


def test_metrics_are_chosen_by_suite(page: Any) -> None:
    page = page.multiselect[0].set_value(["latency"]).run()
    assert not page.exception
    table = page.dataframe[0].value
    assert [name for suite, name in table.columns if suite != "identity"] == ["ttft [s] ↓"]
    page = page.multiselect[1].set_value([]).run()
    assert not page.exception
    assert {suite for suite, _ in page.dataframe[0].value.columns} == {"identity"}


def test_an_older_run_without_rules(page: Any) -> None:
    page = page.selectbox[0].set_value("old").run()
    assert not page.exception
    assert "Run old of spec" in said(page) and "The spec of this run has no gate rules." in said(page)
    assert not page.error


def test_outside_text_never_reaches_markdown(page: Any) -> None:
    interpreted = [
        *(box.value for kind in ("markdown", "caption", "title", "header", "subheader", "error", "warning", "success")
          for box in page.get(kind)),
        *(widget.label for kind in ("selectbox", "multiselect", "toggle", "expander") for widget in page.get(kind)),
    ]  # fmt: skip
    assert len(interpreted) > 10
    for foreign in ("script", "http://", "onerror", "# big", "$x$", "int8", "accuracy", "spec.yaml"):
        assert not [text for text in interpreted if foreign in text], foreign
