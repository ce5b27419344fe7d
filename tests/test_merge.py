"""Joining stores: whatever the order and however often, all that any of them held is there once, and none is harmed."""

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores import ACC, KL, START, Setting, evaluation, fill, identity, machine, numbers, shares, variant
from weighin.results import merge as merging
from weighin.results.errors import StoreError
from weighin.results.merge import OWNED, RULES, Merged, merge
from weighin.results.rows import BuildRow, CalibrationRow, VerdictRow, WaiverRow
from weighin.results.store import Store


def content(path: Path) -> dict[str, list[str]]:
    """Every row of every table as text, in no order."""
    store = Store(path)
    tables = [row["t"] for row in store.rows("select table_name as t from duckdb_tables() where not internal")]
    return {t: sorted(store.query(f"select t::varchar as x from {t} t")["x"]) for t in tables if t != "meta"}


def digests(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def _judge(store: Store, name: str) -> None:
    """A row in each table that a run does not fill."""
    tried = CalibrationRow(
        name, 0, "m1", "accuracy", "acc", "plant", ">= 0", "1", None, 1.0, None, None, True, None, "code", 1.0, START
    )
    store.add_calibration(tried)
    store.add_verdicts([VerdictRow(name, 0, START, "ra", None, "accuracy.acc", {"m": 1}, "pass", "why", ["x"], {})])
    store.add_build(BuildRow(name, "small", 1, "accuracy", "key-small", None, "why"))
    store.add_waiver(WaiverRow(START, "compare", "accuracy.acc", f"{name}-a", f"{name}-b", ["dtype"]))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four stores that overlap: two machines of one class, a copy taken while a run went on, and another class."""
    folder = tmp_path_factory.mktemp("parts")
    grid: dict[str, Any] = {
        "base": {"accuracy": shares([1, 0, 1]), "energy": "no counter"},
        "small": {"accuracy": shares([0, 0, 1])},
    }
    first = fill(folder / "a.duckdb", grid, Setting(run="ra"))
    _judge(first, "ja")
    shutil.copy(first.path, folder / "early.duckdb")
    early = Store(folder / "early.duckdb")
    with duckdb.connect(str(early.path)) as con:  # as the file was when the run had only begun
        con.execute("update runs set status = 'running', ended_at = null")
        con.execute("update labels set variant_key = null where label = 'small'")
        con.execute("update cells set status = 'planned', evaluation_id = null where label = 'small'")
        con.execute("delete from samples where evaluation_id = 'ra-small-accuracy'")
        con.execute("delete from metrics where evaluation_id = 'ra-small-accuracy'")
        con.execute("delete from evaluation_scores where evaluation_id = 'ra-small-accuracy'")
        con.execute("delete from evaluations where evaluation_id = 'ra-small-accuracy'")
    second = fill(folder / "b.duckdb", grid, Setting(run="rb", order=1))
    with duckdb.connect(str(second.path)) as con:
        con.execute("update machines set hostname = 'another'")
        con.execute("update variants set made_at = made_at - interval 1 day, made_seconds = 7")
        con.execute("update identities set loader = 'peft'")
    _judge(second, "jb")
    _judge(second, "ja")
    third = fill(folder / "c.duckdb", {"base": {"fidelity": numbers([0.5, None], KL)}}, Setting("rc", "m2", 2))
    return [first.path, early.path, second.path, third.path]


@pytest.fixture(scope="module")
def whole(parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    target = tmp_path_factory.mktemp("whole") / "w.duckdb"
    merge(parts, target)
    return content(target)


@settings(max_examples=12)
@given(
    order=st.permutations(range(4)),
    again=st.lists(st.integers(0, 3), max_size=3),
    cut=st.integers(1, 6),
)
def test_any_order_and_any_repetition_come_to_the_same(
    parts: list[Path],
    whole: dict[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
    order: list[int],
    again: list[int],
    cut: int,
) -> None:
    """The second half goes in by a store of its own: merging what was merged is merging."""
    folder = tmp_path_factory.mktemp("order")
    chosen = [parts[n] for n in (*order, *again)]
    before = digests(parts)
    merge(chosen[cut:], folder / "between.duckdb")
    merge([*chosen[:cut], folder / "between.duckdb"], folder / "w.duckdb")
    assert content(folder / "w.duckdb") == whole
    assert merge(chosen, folder / "w.duckdb") == Merged(0, 0, 0)
    assert digests(parts) == before


def test_the_state_that_got_furthest_stays(parts: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "w.duckdb")
    merge([parts[1]], store.path)
    assert store.rows("select status from runs") == [{"status": "running"}]
    assert merge([parts[0]], store.path) == Merged(0, 1, 3)
    assert store.rows("select status from runs") == [{"status": "ok"}]
    cells = store.rows("select label, status, evaluation_id from cells where suite = 'accuracy' order by label")
    assert [(c["label"], c["status"], c["evaluation_id"]) for c in cells] == [
        ("base", "ok", "ra-base-accuracy"), ("small", "ok", "ra-small-accuracy"),
    ]  # fmt: skip
    assert store.rows("select value from scores where variant = 'small'") == [{"value": pytest.approx(1 / 3)}]


def test_every_table_of_the_schema_is_joined(parts: list[Path], whole: dict[str, list[str]]) -> None:
    """A new table needs a rule here, or what it holds is lost in silence."""
    assert set(whole) == {*RULES, *OWNED, "evaluations"}
    assert all(whole.values()), "a table that no part fills proves nothing"
    for path in parts:
        for table in ("evaluations", *OWNED, "waivers", "verdicts", "calibrations"):  # rows that never change
            assert set(content(path)[table]) <= set(whole[table])
    assert len(whole["waivers"]) == 2 and len(whole["evaluations"]) == 7


def test_keys_of_the_rules_are_the_primary_keys(parts: list[Path]) -> None:
    found = Store(parts[0]).rows(
        """select table_name, constraint_column_names as key from duckdb_constraints()
           where constraint_type = 'PRIMARY KEY'"""
    )
    primary = {row["table_name"]: set(row["key"]) for row in found}
    for table, rule in RULES.items():
        assert (set(rule.key.split(", ")) == primary.get(table)) == rule.primary, table


def test_scores_of_a_merged_store_are_those_that_are_reckoned_anew(parts: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "w.duckdb")
    merge(parts, store.path)
    assert store.query("from evaluation_scores except from reckon(null)").empty
    assert store.query("from reckon(null) except from evaluation_scores").empty


def test_more_files_than_are_joined_at_once(
    parts: list[Path], whole: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "AT_ONCE", 2)
    assert merge(parts, tmp_path / "w.duckdb").evaluations == 7
    assert content(tmp_path / "w.duckdb") == whole


def test_the_target_may_be_among_the_sources_and_have_any_name(parts: list[Path], tmp_path: Path) -> None:
    for name in ("main.duckdb", "it's.duckdb", "temp.duckdb", 'a "b".duckdb'):
        target = tmp_path / name
        shutil.copy(parts[0], target)
        assert merge([target, parts[3]], target).runs == 1
        assert len(content(target)["runs"]) == 2


def test_an_evaluation_with_two_contents_is_refused_and_nothing_is_kept(parts: list[Path], tmp_path: Path) -> None:
    shutil.copy(parts[0], tmp_path / "altered.duckdb")
    with duckdb.connect(str(tmp_path / "altered.duckdb")) as con:
        con.execute("update samples set value = 1 - value where item = 'item1' and evaluation_id like 'ra-base%'")
    with pytest.raises(StoreError, match=r"evaluation ra-base-accuracy: its samples differ between .*altered"):
        merge([parts[2], parts[0], tmp_path / "altered.duckdb"], tmp_path / "w.duckdb")
    assert not any(content(tmp_path / "w.duckdb").values())


def test_what_is_no_store_of_ours_is_refused_before_anything_is_written(parts: list[Path], tmp_path: Path) -> None:
    newer, other, text = (tmp_path / f"{name}.duckdb" for name in ("newer", "other", "text"))
    shutil.copy(parts[0], newer)
    with duckdb.connect(str(newer)) as con:
        con.execute("update meta set value = '99' where key = 'schema_version'")
    with duckdb.connect(str(other)) as con:
        con.execute("create table mine (x int)")
    text.write_text("no database " * 1000)
    target = tmp_path / "w.duckdb"
    for wrong, message in [
        (newer, "newer Weighin"), (other, "not a Weighin store"), (text, "not a DuckDB database"),
        (tmp_path / "none.duckdb", "no such store"), (tmp_path, "is a directory"),
    ]:  # fmt: skip
        with pytest.raises(StoreError, match=message):
            merge([parts[0], wrong], target)
        assert not target.exists()


def test_a_source_that_is_being_written_is_waited_for(parts: list[Path], tmp_path: Path) -> None:
    shutil.copy(parts[0], tmp_path / "a.duckdb")
    with duckdb.connect(str(tmp_path / "a.duckdb")):
        code = "import sys; from weighin.results.merge import merge; merge(sys.argv[1:2], sys.argv[2], patience=0.3)"
        command = [sys.executable, "-c", code, str(tmp_path / "a.duckdb"), str(tmp_path / "w.duckdb")]
        outcome = subprocess.run(command, capture_output=True, text=True)
    assert "Gave up after 0.3 s" in outcome.stderr
    assert merge([tmp_path / "a.duckdb"], tmp_path / "w.duckdb").runs == 1


def test_what_a_killed_writer_left_in_its_log_comes_along(parts: list[Path], tmp_path: Path) -> None:
    code = """
import os, signal, sys, duckdb
con = duckdb.connect(sys.argv[1])
con.execute("set checkpoint_threshold = '1 GB'")
con.execute("insert into waivers values (now(), 'gate', 'm', 'a', 'b', '[]')")
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "a.duckdb"
    shutil.copy(parts[3], path)
    subprocess.run([sys.executable, "-c", code, str(path)])
    left = [path, tmp_path / "a.duckdb.wal"]
    before = digests(left)
    merge([path], tmp_path / "w.duckdb")
    assert len(content(tmp_path / "w.duckdb")["waivers"]) == 1
    assert digests(left) == before


MERGE = """
import sys
from weighin.results.merge import merge
print("go", flush=True)
merge(sys.argv[2:], sys.argv[1])
print("done", flush=True)
"""


def test_a_killed_merge_leaves_all_or_nothing_and_goes_on_when_called_again(parts: list[Path], tmp_path: Path) -> None:
    big = fill(tmp_path / "big.duckdb", {"base": {"accuracy": shares([1, 0] * 40_000, ACC)}}, Setting("rz", order=9))
    sources = [*parts[2:], big.path]
    merge(sources, tmp_path / "expected.duckdb")
    inputs = digests(sources)
    shutil.copy(parts[0], tmp_path / "start.duckdb")
    merge([parts[0]], tmp_path / "expected.duckdb")
    expected, start = content(tmp_path / "expected.duckdb"), content(parts[0])
    for delay in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 5.0):
        target = tmp_path / f"w{delay}.duckdb"
        shutil.copy(tmp_path / "start.duckdb", target)
        writer = subprocess.Popen(
            [sys.executable, "-c", MERGE, str(target), *map(str, sources)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout and writer.stdout.readline() == "go\n"
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert content(target) in (start, expected)
        merge(sources, target)
        assert content(target) == expected
    assert digests(sources) == inputs


def test_a_kill_inside_the_transaction_leaves_what_was_there(parts: list[Path], tmp_path: Path) -> None:
    code = """
import os, signal, sys
from weighin.results import merge as merging
merging.RULES["killed"] = None  # the last table: everything else is written by then
merging._union = lambda table, *rest, good=merging._union: (
    os.kill(os.getpid(), signal.SIGKILL) if table == "killed" else good(table, *rest))
merging.merge(sys.argv[2:], sys.argv[1])
"""
    target = tmp_path / "w.duckdb"
    shutil.copy(parts[0], target)
    outcome = subprocess.run([sys.executable, "-c", code, str(target), *map(str, parts)])
    assert outcome.returncode == -signal.SIGKILL
    assert content(target) == content(parts[0])


def test_rows_of_one_key_differ_only_where_a_machine_said_so(tmp_path: Path) -> None:
    """The preferred row is one of those that were there, never a mixture."""
    stores = []
    for n, made in enumerate((3, 1, 2)):
        store = fill(tmp_path / f"{n}.duckdb", {})
        store.add_machine(dataclasses.replace(machine(), hostname=f"host{made}"))
        store.add_variant(dataclasses.replace(variant("small"), made_at=START + timedelta(hours=made), made_seconds=n))
        store.add_identity(identity("small"))
        store.add_evaluation(evaluation(f"e{n}", "small"), shares([n % 2]))
        stores.append(store.path)
    merge(stores, tmp_path / "w.duckdb")
    found = Store(tmp_path / "w.duckdb").variant("key-small")
    assert found is not None and (found.made_at, found.made_seconds) == (START + timedelta(hours=1), 1)


def test_the_verb_says_what_was_added(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from weighin.harness.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(parts[0]), str(parts[3]), "--into", "all.duckdb"]) == 0
    assert "2 stores: 2 runs, 4 evaluations and 8 samples are new" in " ".join(capsys.readouterr().out.split())
    assert len(content(tmp_path / "all.duckdb")["runs"]) == 2
    assert main(["merge", str(parts[2]), "--store", "all.duckdb"]) == 0
    assert len(content(tmp_path / "all.duckdb")["runs"]) == 3
    assert main(["merge", "none.duckdb"]) == 2
    assert "none.duckdb: there is no such store" in capsys.readouterr().err
