"""The store: real DuckDB files, what goes in and comes out, and everything that can be wrong with a path."""

import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import duckdb
import pytest

from tests.stores import ACC, KL, START, evaluation, fill, identity, machine, run_row, shares, variant
from weighin.results import database
from weighin.results.errors import StoreError
from weighin.results.records import Metric, Sample
from weighin.results.rows import CellRow, EvaluationRow, IdentityRow, Machine, RunRow, VariantRow
from weighin.results.store import SCHEMA_VERSION, Store

TABLES = {
    Machine: "machines",
    VariantRow: "variants",
    IdentityRow: "identities",
    RunRow: "runs",
    EvaluationRow: "evaluations",
    CellRow: "cells",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0, 1])}})


@pytest.mark.parametrize("row", TABLES, ids=lambda row: row.__name__)
def test_a_row_has_the_columns_of_its_table_in_their_order(store: Store, row: type) -> None:
    columns = store.rows("select column_name from duckdb_columns() where table_name = ? order by column_index",
                         [TABLES[row]])  # fmt: skip
    assert [c["column_name"] for c in columns] == [f.name for f in dataclasses.fields(row)]


def test_rows_come_back_as_they_went_in(store: Store) -> None:
    assert store.variant("key-base") == variant("base")
    assert store.identity("key-base", "m1") == identity("base")
    assert store.variant("nobody") is None and store.identity("key-base", "m2") is None
    assert Machine(**store.rows("select * from machines")[0]) == machine()
    run = store.rows("select * from runs")[0]
    assert run["started_at"] == START and run["ended_at"] > START and run["status"] == "ok"
    assert store.rows("select * from cells")[0]["evaluation_id"] == "r1-base-accuracy"
    sample = store.rows("select * from samples where item = 'item1'")[0]
    assert (sample["value"], sample["cluster"], sample["detail"], sample["weight"]) == (0.0, "item1", {}, 1.0)


def test_content_is_inserted_once_and_a_newer_look_replaces_an_identity(store: Store) -> None:
    store.add_variant(dataclasses.replace(variant("base"), made_seconds=9.0))
    assert store.variant("key-base") == variant("base")
    store.add_identity(identity("base", form="packed"))
    assert store.rows("select form from identities") == [{"form": "packed"}]


def test_held_gives_the_latest_that_need_not_be_done_again(store: Store) -> None:
    later = START.replace(year=2027)
    store.add_evaluation(evaluation("new", started_at=later), shares([1]))
    store.add_evaluation(evaluation("bad", started_at=later.replace(year=2028), status="failed", reason="x"), [])
    store.add_evaluation(evaluation("shy", suite="energy", status="abstained", reason="no counter"), [])
    store.add_evaluation(evaluation("oom", suite="latency", status="failed", reason="killed"), [])
    held = store.held(["base-accuracy", "base-energy", "base-latency", "other"])
    assert held == {"base-accuracy": "new", "base-energy": "shy"}
    assert store.held([]) == {}


def test_costs_are_means_by_suite_and_stage(store: Store) -> None:
    store.add_variant(dataclasses.replace(variant("small"), stage="gptq", made_seconds=2.0))
    store.add_variant(dataclasses.replace(variant("tiny"), stage="gptq", made_seconds=4.0))
    assert store.costs() == {"accuracy": 1.5, "gptq": 3.0}


def test_without_a_file_there_is_nothing_held_and_a_query_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "none.duckdb")
    assert (store.exists(), store.held(["k"]), store.costs(), store.latest_run()) == (False, {}, {}, None)
    with pytest.raises(StoreError, match="run `weighin run` first"):
        store.query("select 1")
    assert not store.exists()


def test_a_cell_goes_through_its_states_and_keeps_its_log(store: Store) -> None:
    def cell() -> dict[str, object]:
        return store.rows("select status, reused, reason, log, evaluation_id from cells where label = 'base'")[0]

    store.set_cell("r1", "base", "accuracy", status="running", log="a.log")
    assert cell() == {"status": "running", "reused": False, "reason": None, "log": "a.log", "evaluation_id": None}
    store.set_cell("r1", "base", "accuracy", status="ok", evaluation_id="r1-base-accuracy", reused=True)
    assert cell()["reused"] and cell()["log"] == "a.log"
    store.set_label("r1", "base", None)
    assert store.rows("select variant_key from labels") == [{"variant_key": None}]


def test_cells_are_answered_by_what_is_held_whatever_came_of_it(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0]), "energy": "no counter"}})
    suites = ("accuracy", "energy", "lost")
    store.start_run(run_row("r2", order=5), [("root", "key-base")], [("root", suite) for suite in suites])
    store.reuse("r2", [])
    store.reuse("r2", [("root", suite, f"r1-base-{suite}") for suite in suites])
    found = store.rows(
        "select suite, status, evaluation_id, reused, reason from cells where run_id = 'r2' order by suite"
    )
    assert [tuple(row.values()) for row in found] == [
        ("accuracy", "ok", "r1-base-accuracy", True, None),
        ("energy", "abstained", "r1-base-energy", True, "no counter"),
        ("lost", "failed", "r1-base-lost", True, "its evaluation is missing from the store"),
    ]


def test_an_evaluation_is_all_or_nothing(store: Store) -> None:
    store.set_cell("r1", "base", "accuracy", status="running")
    with pytest.raises(StoreError, match="nothing was written"):  # its id is taken
        store.add_evaluation(evaluation("r1-base-accuracy"), shares([1] * 9), ("r1", "base", "accuracy"))
    assert store.rows("select count(*) as n from samples") == [{"n": 3}]
    assert store.rows("select status from cells") == [{"status": "running"}]


def test_what_is_not_finite_is_null_with_a_reason(store: Store) -> None:
    samples = [
        Sample("nan", math.nan, KL, detail={"x": math.nan, "y": [math.inf, 1]}),
        Sample("inf", math.inf, KL),
        Sample("none", None, KL, reason="too long"),
        Sample("mute", None, KL),
        Sample("fine", 1.0, KL),
    ]
    store.add_evaluation(evaluation("e2"), samples)
    found = store.rows("select item, value, reason, detail from samples where evaluation_id = 'e2' order by rowid")
    assert [(r["item"], r["value"], r["reason"]) for r in found] == [
        ("nan", None, "not finite"), ("inf", None, "not finite"), ("none", None, "too long"),
        ("mute", None, "not measured"), ("fine", 1.0, None),
    ]  # fmt: skip
    assert found[0]["detail"] == {"x": None, "y": [None, 1]}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([Sample("a", 1.0)], "names no metric"),
        ([Sample("a", 1.0, ACC), Sample("a", 0.0, ACC)], "twice"),
        ([Sample("a", 1.0, ACC), Sample("b", 0.0, Metric("acc", "%"))], "two meanings"),
        ([Sample("a", 1.0, ACC, weight=-1.0)], "weight"),
        ([Sample("a", 1.0, ACC, weight=math.nan)], "weight"),
    ],
)
def test_samples_that_cannot_be_kept_without_guessing_are_refused(
    store: Store, samples: list[Sample], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        store.add_evaluation(evaluation("e2"), samples)
    assert store.rows("select count(*) as n from evaluations") == [{"n": 1}]


def test_a_hundred_thousand_samples_take_seconds(tmp_path: Path) -> None:
    start = time.perf_counter()
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0] * 50_000)}})
    score = store.rows("select n, value from scores")
    assert score == [{"n": 100_000, "value": 0.5}]
    assert time.perf_counter() - start < 20  # about two; the margin is for a loaded machine


# -- paths and files ------------------------------------------------------------------------------------------------


def _write(store: Store) -> None:
    store.add_machine(machine())


def test_wrong_places_get_one_message(tmp_path: Path) -> None:
    text = tmp_path / "notes.duckdb"
    text.write_text("not a database " * 2000)
    header = tmp_path / "broken.duckdb"
    header.write_bytes(b"\0" * 8 + b"DUCK" + b"\xff" * 20_000)
    for path, message in [
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "w.duckdb", "directory does not exist"),
        (text, "is not a DuckDB database"),
        (header, "broken.duckdb"),
        (Path("/proc/w.duckdb"), "/proc/w.duckdb"),
    ]:
        with pytest.raises(StoreError, match=message) as caught:
            _write(Store(path))
        assert "\n" not in str(caught.value)
    assert text.read_text() == "not a database " * 2000
    with pytest.raises(StoreError, match="is a directory"):
        Store(tmp_path).query("select 1")


def test_an_empty_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").touch()
    with pytest.raises(StoreError, match="is an empty file"):
        _write(Store(tmp_path / "w.duckdb", patience=0.1))


def test_other_databases_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("create table mine (x int)")
    for act in (_write, lambda s: s.query("select 1")):
        with pytest.raises(StoreError, match="not a Weighin store"):
            act(Store(path))
    with duckdb.connect(str(path)) as con:
        assert con.execute("select table_name from duckdb_tables()").fetchall() == [("mine",)]


def test_a_newer_store_is_not_touched(store: Store) -> None:
    with duckdb.connect(str(store.path)) as con:
        con.execute("update meta set value = '99' where key = 'schema_version'")
    for act in (_write, lambda s: s.query("select 1")):
        with pytest.raises(StoreError, match="newer Weighin"):
            act(store)


def test_older_views_are_replaced_when_the_store_is_read(store: Store) -> None:
    with duckdb.connect(str(store.path)) as con:
        con.execute("create or replace view latest_scores as select 1 as old")
        con.execute("update meta set value = 'old' where key = 'views'")
    assert "old" not in store.query("select * from latest_scores").columns
    assert store.rows("select value from meta where key = 'schema_version'") == [{"value": str(SCHEMA_VERSION)}]


def test_a_store_of_the_first_release_is_brought_up_to_date(tmp_path: Path) -> None:
    """Nothing that it held is lost, and what it could not know is told apart from zero."""
    path = tmp_path / "w.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("create table meta (key varchar primary key, value varchar not null)")
        con.execute("insert into meta values ('schema_version', '1'), ('views', 'old')")
        con.execute(database._sql("schema.sql"))
        con.execute("insert into variants values ('k', null, 'k', null, '{}', 0, now(), 1.5, 7, 'm')")
    old = Store(path).variant("k")
    assert old is not None and (old.made_seconds, old.made_peak_bytes) == (1.5, 7)
    assert (old.made_joules, old.made_joules_source, dict(old.others)) == (None, None, {})


def test_a_failing_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = database._sql
    monkeypatch.setattr(database, "_sql", lambda name: good(name) + "select nonsense from nowhere;")
    store = Store(tmp_path / "w.duckdb")
    with pytest.raises(StoreError, match="nothing was written"):
        _write(store)
    with duckdb.connect(str(store.path)) as con:
        assert con.execute("select table_name from duckdb_tables()").fetchall() == []
    monkeypatch.setattr(database, "_sql", good)
    with pytest.raises(StoreError, match="holds no run yet"):
        store.query("select 1")
    _write(store)


def test_a_database_name_is_only_ever_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(Store(":memory:"))
    assert (tmp_path / ":memory:").is_file()


def test_a_reader_cannot_write_and_a_wrong_query_is_one_message(store: Store) -> None:
    for sql in ("delete from samples", "select nothing from nowhere", "selec"):
        with pytest.raises(StoreError, match="the query failed") as caught:
            store.query(sql)
        assert "\n" not in str(caught.value)


def test_outside_text_is_never_sql(store: Store) -> None:
    evil = "'; drop table samples; --"
    store.set_cell("r1", "base", evil, status="failed", reason=evil)
    assert store.rows("select suite, reason from cells where suite = ?", [evil]) == [{"suite": evil, "reason": evil}]
    assert store.held([evil]) == {}
    assert store.rows("select count(*) as n from samples") == [{"n": 3}]


def test_times_need_no_time_zone_package(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytz", None)
    assert store.rows("select started_at, ended_at from runs")[0]["started_at"] == START
    assert len(store.query("select * from runs")) == 1


def test_json_is_text_in_a_query_and_decoded_in_rows(store: Store) -> None:
    text = store.query("select spec from runs")["spec"][0]
    assert json.loads(text) == store.rows("select spec from runs")[0]["spec"] == {"variants": {}}


def test_a_snapshot_answers_many_queries_from_one_opening(store: Store) -> None:
    with store.snapshot() as held:
        assert held.latest_run() == "r1" and held.rows("select count(*) as n from samples") == [{"n": 3}]
        with pytest.raises(StoreError, match="Gave up"):  # nobody writes in between
            Store(store.path, patience=0.1).set_label("r1", "base", None)
    store.set_label("r1", "base", None)


def test_an_error_inside_a_transaction_undoes_it(store: Store) -> None:
    with pytest.raises(KeyError), database.writing(store.path, 1) as con:
        con.execute("delete from samples")
        raise KeyError("the writer's own mistake")
    assert store.rows("select count(*) as n from samples") == [{"n": 3}]
