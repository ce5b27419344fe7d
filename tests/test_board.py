"""The board on a real store: each page shows what it must, and text from outside stays text."""

from typing import Any

import pytest

from tests.boards import GRID, HOSTILE, RUDE_REASON, choice, said, show, table, weigh
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")

from weighin.leaderboard.page import PAGES


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs; nobody may change it."""
    path = tmp_path_factory.mktemp("board") / "w.duckdb"
    weigh(path, "old", 0, rules=[])
    return weigh(path, "new", 1)


def opened(store: Store, monkeypatch: pytest.MonkeyPatch, name: str, **address: str) -> Any:
    page = show(store.path, monkeypatch, name, **address)
    assert not page.exception, [each.message for each in page.exception]
    return page


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_the_newest_run(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    page = opened(store, monkeypatch, name)
    run = choice(page, "Run")
    assert [option.rsplit(" · ", 1)[1] for option in run.options] == ["new", "old"]
    assert run.value == "new" and not page.warning


@pytest.mark.parametrize("name", PAGES)
def test_outside_text_never_reaches_markdown(store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    page = opened(store, monkeypatch, name)
    interpreted = [
        *(box.value for kind in ("markdown", "caption", "title", "header", "subheader", "error", "warning", "success")
          for box in page.get(kind)),
        *(widget.label for kind in ("selectbox", "multiselect", "toggle", "expander", "button", "metric")
          for widget in page.get(kind)),
    ]  # fmt: skip
    assert len(interpreted) > 1
    for foreign in ("script>", "http://", "onerror", "# big", "$x$", "int8", "spec.yaml"):
        assert not [text for text in interpreted if foreign in text], foreign


def test_the_overview_says_what_the_gate_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "overview")
    assert page.text[0].value.startswith("Run new of spec spec.yaml, started 2026-01-01 01:00 UTC, complete, on cpu")
    assert [box.value for box in page.error] == ["The release fails: at least one gate rule does."]
    assert [(each.label, each.value) for each in page.metric] == [
        ("Variants", "4"), ("Cells measured", "12 of 16"), ("Abstained", "3"), ("Failed", "1"),
    ]  # fmt: skip
    rules = table(page, "verdict")
    assert rules["verdict"].tolist() == ["✗ FAIL", "? open (watch)", "✓ pass"]
    assert rules["rule"].iloc[0] == f"{HOSTILE} against base, margin 0"
    assert rules["why"].iloc[0].startswith("2.86 MiB against 1.91 MiB")
    assert "its error rates were not measured on this run's data" in said(page)
    assert "There is nothing to hold it against: no earlier run of this spec" in said(page)


def test_the_overview_of_a_run_without_rules(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "overview", run="old")
    assert "Run old of spec" in said(page) and "No verdict: the spec has no rule with the role gate." in said(page)
    assert not page.error


def test_the_leaderboard_has_a_row_a_variant_and_a_column_a_metric(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(store, monkeypatch, "leaderboard")
    shown = page.dataframe[0].value
    assert list(shown.index) == ["base", "int8", HOSTILE, "sim"], "by accuracy; whoever has none comes last"
    assert shown["", "tier"].tolist()[:3] == [1, 1, 1]
    pictures = shown["accuracy", "95 % interval"].tolist()
    assert all(each.startswith("data:image/svg+xml;base64,") for each in pictures[:3]) and pictures[3] == ""
    headers = [name for suite, name in shown.columns if suite not in ("identity", "")]
    assert headers == ["95 % interval", "acc [1] ↑", "energy [J/token] ↓", "ttft [s] ↓", "disk [B] ↓"]
    assert shown["memory", "disk [B] ↓"].tolist() == [2_000_000, 600_000, 3_000_000, 500_000]


def test_another_metric_ranks_and_stays_in_the_address(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "leaderboard")
    page = choice(page, "Rank by").select("memory.disk").run()
    assert not page.exception and page.query_params["by"] == "memory.disk"
    shown = page.dataframe[0].value
    assert list(shown.index) == ["sim", "int8", "base", HOSTILE] and shown["", "tier"].tolist() == [1, 2, 3, 4]
    page = choice(page, "Rank by").select("latency.ttft").run()
    assert "No tiers: dense kernel: the runtime simulates this format." in said(page)
    page = choice(page, "Rank by").select("accuracy.acc").run()
    assert "by" not in page.query_params, "the usual choice needs no word in the address"


def test_filters_come_from_the_address(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, left in (
        ({"text": "INT"}, ["int8"]),
        ({"stages": "none: a base"}, ["base"]),
        ({"size": "under 1 MiB"}, ["base", "int8", HOSTILE, "sim"]),
        ({"sources": "modelled"}, ["base"]),
        ({"text": "nobody"}, None),
        ({"size": "what is this", "by": "no.metric", "run": "none"}, ["base", "int8", HOSTILE, "sim"]),
    ):
        page = opened(store, monkeypatch, "leaderboard", **address)
        if left is None:
            assert "No variant passes all filters" in said(page)
        else:
            assert list(page.dataframe[0].value.index) == left, address


def test_metrics_are_chosen_by_suite(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "leaderboard")
    page = choice(page, "Suites").set_value(["latency"]).run()
    assert not page.exception
    shown = page.dataframe[0].value
    headers = [name for suite, name in shown.columns if suite not in ("identity", "")]
    assert headers == ["95 % interval", "acc [1] ↑", "ttft [s] ↓"]


def test_every_absence_has_its_reason(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "leaderboard")
    assert [tuple(row) for row in table(page, "reason").itertuples(index=False)] == [
        ("sim", "accuracy", "all", "failed", "out of memory"),
        ("int8", "energy", "all", "abstained", RUDE_REASON),
        ("sim", "energy", "all", "abstained", "no counter"),
        (HOSTILE, "energy", "all", "abstained", "no counter"),
    ]


def test_the_front_stands_beside_its_chart_in_words_and_as_a_table(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(store, monkeypatch, "pareto")
    assert len(page.get("vega_lite_chart") or page.get("arrow_vega_lite_chart")) == 1
    assert "On the front of accuracy.acc against memory.disk: int8.\n" in said(page)
    assert f"Possibly on it: base (beaten by int8); {HOSTILE} (beaten by int8).\n" in said(page)
    rows = table(page, "place").set_index("variant")
    assert rows.loc["int8", "memory.disk"] == "586 KiB · n 1"
    assert rows.loc["base", ["place", "why"]].tolist() == ["possibly on it", "beaten by int8"]
    assert rows.loc["int8", "stable"] == "100 %" and rows.loc["sim", "stable"] == "–"
    assert "Hypervolume: none; there is no reference point" in said(page)
    assert rows.loc["sim", "why"] == "accuracy.acc: out of memory"


def test_other_axes_and_a_third(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = choice(opened(store, monkeypatch, "pareto"), "Across").select("latency.ttft").run()
    assert not page.exception
    assert "accuracy.acc against latency.ttft: base." in said(page)
    assert "latency.ttft cannot show anybody dominated: not interleaved." in said(page)
    page = choice(page, "Third objective").select("memory.disk").run()
    assert not page.exception and "against latency.ttft and memory.disk: base, int8." in said(page)
    assert page.query_params["x"] == "latency.ttft" and page.query_params["z"] == "memory.disk"
    page = choice(page, "Up").select("latency.ttft").run()
    assert not page.exception and "A front needs different metrics" in said(page)


def test_a_variant_with_its_chain_and_figures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "variant", variant=HOSTILE)
    chain = table(page, "made with")
    assert chain["variant"].tolist() == ["base", HOSTILE] and chain["took"].tolist() == ["–", "2.00 s"]
    assert chain["loss of the stage"].tolist() == ["–", "not measured"]
    rows = table(page, "note").set_index("metric")
    assert rows.loc["disk", "value"] == "2.86 MiB · n 1" and rows.loc["all", "note"] == "abstained: no counter"
    assert ("Form", "dense") in [(each.label, each.value) for each in page.metric]


def test_two_variants_item_by_item(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "compare", a="base", b=HOSTILE)
    rows = table(page, "verdict").set_index("metric")
    assert rows.loc["memory.disk", "verdict"] == "worse" and rows.loc["accuracy.acc", "verdict"] == "not told apart"
    assert rows.loc["accuracy.acc", ["lost", "won"]].tolist() == ["1", "0"]
    assert "1 item differs: 1 lost." in said(page)
    assert table(page, "went")["went"].tolist() == ["lost"]
    refused = table(page, "fields that differ")
    assert f"{HOSTILE}: energy abstained: no counter" in refused["reason"].tolist()


def test_runs_tell_what_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "runs")
    assert "16 of 16 cells: 12 ok, 3 abstained, 1 failed." in said(page)
    rows = table(page, "log")
    assert rows.iloc[0].tolist() == ["failed", "sim", "accuracy", "out of memory", "–"]
    assert table(page, "measuring took")["run"].tolist() == ["new", "old"]


def test_instruments_that_were_never_tried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(store, monkeypatch, "instruments")
    assert "0 of 4 suites of this run have recovered all of their planted truths" in said(page)
    assert table(page, "on planted truth")["on planted truth"].tolist() == ["never tried on this machine"] * len(
        GRID["base"]
    )
