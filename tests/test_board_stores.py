"""Stores that the page cannot show, or not yet: a sentence that says what to do, never a traceback."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from tests.boards import said, show, table, weigh
from tests.stores import fill, machine, run_row, shares
from weighin.results.errors import WeighinError
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")

from weighin.leaderboard import cells, frames
from weighin.leaderboard.page import PAGES


def sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(frames, "PATIENCE", 0.3)
    page = show(path, monkeypatch)
    assert not page.exception and not page.dataframe
    assert [box.value for box in page.warning] == ["There is nothing to show from this store."]
    return str(page.text[0].value)


def test_a_missing_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no store yet; run `weighin run` first" in sentence(tmp_path / "none.duckdb", monkeypatch)
    assert not list(tmp_path.iterdir())
    assert "its directory does not exist" in sentence(tmp_path / "no" / "w.duckdb", monkeypatch)
    assert "is a directory" in sentence(tmp_path, monkeypatch)


def test_an_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    Store(path).add_machine(machine())
    assert "holds no run yet; run `weighin run` first" in sentence(path, monkeypatch)
    path.unlink()
    path.touch()
    assert "is an empty file" in sentence(path, monkeypatch)
    path.unlink()
    duckdb.connect(str(path)).close()
    assert "holds no run yet" in sentence(path, monkeypatch)


def test_a_store_of_a_newer_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    Store(path).add_machine(machine())
    with duckdb.connect(str(path)) as con:
        con.execute("update meta set value = '99' where key = 'schema_version'")
    assert "was written by a newer Weighin (schema 99" in sentence(path, monkeypatch)


def test_a_file_that_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(b"not a database" * 1000)
    assert "is not a DuckDB database" in sentence(path, monkeypatch)
    path.unlink()
    with duckdb.connect(str(path)) as con:
        con.execute("create table t (a int)")
    assert "is a DuckDB database but not a Weighin store" in sentence(path, monkeypatch)


def test_damaged_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weigh(tmp_path / "whole.duckdb").path.read_bytes()
    path = tmp_path / "w.duckdb"
    for start, end in ((0, len(whole) // 3), (4096, 12_288), (12_288, len(whole))):
        path.write_bytes(whole[:end] if start == 0 else whole[:start] + b"\xa5" * (end - start) + whole[end:])
        assert str(path) in sentence(path, monkeypatch)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process has the store open for writing."""
    code = "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_locked_store_and_then_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    weigh(path)
    with held(path):
        assert "try again when the other is done" in sentence(path, monkeypatch)
    page = show(path, monkeypatch)
    assert not page.exception and len(page.dataframe) == 2 and not page.warning


def test_the_page_follows_a_run_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    store = weigh(path, started="running")
    store.set_cell("r1", "sim", "accuracy", status="running")
    page = show(path, monkeypatch, "runs")
    assert not page.exception
    assert "in flight or interrupted, 15 of 16 cells weighed" in page.text[0].value
    assert table(page, "log").iloc[0].tolist() == ["running", "sim", "accuracy", "is being measured", "–"]
    store.set_cell("r1", "sim", "accuracy", status="failed", reason="killed")
    page = page.run()
    assert table(page, "log").iloc[0].tolist() == ["failed", "sim", "accuracy", "killed", "–"]


@pytest.mark.parametrize("name", PAGES)
def test_a_store_of_one_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0] * 4)}}).path
    page = show(path, monkeypatch, name)
    assert not page.exception and not page.warning
    if name == "compare":
        assert "A comparison needs two variants: this run has fewer." in said(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_run_that_has_nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store = Store(tmp_path / "w.duckdb")
    store.add_machine(machine())
    store.start_run(run_row(), [("base", None), ("small", None)], [("base", "accuracy"), ("small", "accuracy")])
    page = show(store.path, monkeypatch, name)
    assert not page.exception and not page.warning


def test_only_logs_of_this_machine_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path / "home"))
    logs = tmp_path / "home" / "logs" / "r1"
    logs.mkdir(parents=True)
    (logs / "a.log").write_text("x" * 9000 + "the end")
    (tmp_path / "secret.log").write_text("secret")
    (logs / "b.log").symlink_to(tmp_path / "secret.log")
    assert (cells.tail(str(logs / "a.log")) or "").endswith("xthe end") and len(
        cells.tail(str(logs / "a.log")) or ""
    ) == 4000
    for other in (tmp_path / "secret.log", logs / "b.log", logs / "none.log", "/etc/passwd", "–", "a\0b.log"):
        assert cells.tail(str(other)) is None


def test_rules_that_cannot_be_judged_leave_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weigh(tmp_path / "w.duckdb", rules=[{"metric": "accuracy.nope", "variant": "int8"}]).path
    page = show(path, monkeypatch)
    assert not page.exception
    assert [box.value for box in page.warning] == ["The gate rules of this run could not be judged."]
    run = frames.runs(Store(path))[0]
    for rules in ([{"what": "is this"}], ["words"], "words", 3, [{"metric": 1, "variant": "int8"}]):
        with pytest.raises(WeighinError):
            frames.verdicts(Store(path), {**run, "spec": {"gate": rules}})
    assert frames.verdicts(Store(path), {**run, "spec": ["no", "rules"]}) == []
