"""A store behind a server: what goes in and comes out is as with a file, from many processes at once."""

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import SECRET, Server, check_written, serving, writers
from tests.stores import (
    ACC,
    ENERGY,
    KL,
    START,
    Setting,
    evaluation,
    fill,
    identity,
    machine,
    numbers,
    run_row,
    shares,
    variant,
)
from tests.test_merge import content
from weighin.harness.cli import main
from weighin.results import remote
from weighin.results.address import TOKEN, Address, place
from weighin.results.errors import StoreError
from weighin.results.merge import merge
from weighin.results.records import Sample
from weighin.results.rows import CalibrationRow, VerdictRow, WaiverRow
from weighin.results.store import Store

installed = all(importlib.util.find_spec(f"duckdb_extension_{name}") for name in remote.EXTENSIONS)
served = pytest.mark.skipif(not installed, reason="needs duckdb-extension-quack and -httpfs: pip install '.[serve]'")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(TOKEN, SECRET)
    yield
    remote.close_idle()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for tests that leave no trace on each other."""
    if not installed:
        pytest.skip("needs duckdb-extension-quack and -httpfs: pip install '.[serve]'")
    path = tmp_path_factory.mktemp("shared") / "w.duckdb"
    grid: dict[str, Any] = {
        "base": {"accuracy": shares([1, 0, 1, 1, 0, 1] * 20), "energy": numbers([1.0] * 8, ENERGY)},
        "small": {"accuracy": shares([0, 0, 1, 1, 0, 1] * 20), "energy": numbers([0.5] * 8, ENERGY)},
    }
    fill(path, grid)
    with serving(path) as server:
        yield server


NASTY = "'; drop table samples; -- \\ \" \n ? $1 é 漢 🦆 $$"


def _write_everything(store: Store) -> None:
    """Every method that writes, with values that are easily broken on their way."""
    store.add_machine(machine())
    for label in ("base", "small"):
        store.add_variant(variant(label))
    store.add_identity(identity("base"))
    store.add_identity(identity("base", form="packed"))
    cells = [("base", "accuracy"), ("base", NASTY), ("small", "accuracy"), ("small", "kl")]
    store.start_run(run_row(), [("base", "key-base"), ("small", None)], cells)
    store.set_label("r1", "small", "key-small")
    store.set_cell("r1", "base", NASTY, status="failed", reason=NASTY, log="a.log")
    store.add_evaluation(evaluation("e1", suite="accuracy"), shares([1, 0, 1]), ("r1", "base", "accuracy"))
    store.reuse("r1", [("small", "accuracy", "e1")])
    samples = [
        Sample(NASTY, 0.1 + 0.2, KL, detail={"text": NASTY, "x": math.nan}),
        Sample("tiny", 5e-324, KL, weight=1e-300),
        Sample("nan", math.nan, KL),
        Sample("none", None, KL, reason=NASTY),
        Sample("whole", 0.5, KL, low=0.25, high=0.75),
        *(Sample(f"item{i}", i / 7, ACC, cluster=f"c{i % 3}") for i in range(6_000)),
    ]
    store.add_evaluation(evaluation("e2", "small", "kl"), samples, ("r1", "small", "kl"), declared=[ENERGY])
    store.add_evaluation(evaluation("e3", suite="shy", status="abstained", reason=NASTY), [])
    tried = ("accuracy", "acc", "plant", ">= 0", "1", None, 0.1, -math.inf, None, True, None, "code", 1.0, START)
    store.add_calibration(CalibrationRow("c", 0, "m1", *tried))
    store.add_verdicts(
        [VerdictRow("j", n, START, "r1", None, "kl.kl", {"m": NASTY}, "pass", "", [NASTY], {}) for n in (0, 1)]
    )
    store.add_waiver(WaiverRow(START, "compare", "kl.kl", "e1", "e2", [NASTY, "dtype"]))
    with store.together() as held:
        held.add_machine(machine("m2"))
        held.add_variant(variant("other"))
    with pytest.raises(KeyError), store.together() as held:
        held.add_machine(machine("m3"))
        raise KeyError("the writer's own mistake")
    store.end_run("r1", "ok")


@served
def test_what_goes_through_a_server_is_kept_as_in_a_file(tmp_path: Path) -> None:
    _write_everything(Store(tmp_path / "file.duckdb"))
    with serving(tmp_path / "served.duckdb") as server:
        _write_everything(Store(server.place))
    far, near = content(tmp_path / "served.duckdb"), content(tmp_path / "file.duckdb")
    for each in (far, near):  # the one clock that the store itself reads
        each["runs"] = [row.split("ended_at")[0] for row in each["runs"]]
    assert far == near


@served
def test_what_is_read_through_a_server_is_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    _write_everything(Store(path))

    def read(store: Store) -> list[Any]:
        with store.snapshot() as held:
            seen = held.rows("select * from scores order by all")
        return [
            seen, store.latest_run(), store.held(["base-accuracy", NASTY, "base-shy"]), store.held([]), store.costs(),
            store.variant("key-base"), store.variant(NASTY), store.identity("key-base", "m1"),
            store.rows("select * from samples order by all"), store.rows("select * from variant_cards order by all"),
            store.rows("select $a as a, len($b) as b", {"a": NASTY, "b": ["x", None, NASTY]}),
            store.query("select * from runs").to_csv(), store.query("select ? as x", [True])["x"].tolist(),
        ]  # fmt: skip

    near = read(Store(path))
    with serving(path) as server:
        assert list(map(repr, read(Store(server.place)))) == list(map(repr, near))


@served
@pytest.mark.parametrize(
    ("names", "count"), [(4, 12), pytest.param(16, 500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_writers_at_once_lose_nothing_and_write_nothing_twice(tmp_path: Path, names: int, count: int) -> None:
    path = tmp_path / "w.duckdb"
    with serving(path) as server:
        assert [each.wait() for each in writers([server.place] * names, count)] == [0] * names
        assert Store(server.place).rows("select count(*) as n from evaluations") == [{"n": names * count}]
    check_written(path, names, count)


@pytest.mark.parametrize(
    ("names", "count"), [(4, 12), pytest.param(16, 500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_machines_with_files_of_their_own_come_to_the_same(tmp_path: Path, names: int, count: int) -> None:
    paths = [str(tmp_path / f"{n}.duckdb") for n in range(names)]
    assert [each.wait() for each in writers(paths, count)] == [0] * names
    merge(paths, tmp_path / "w.duckdb")
    check_written(tmp_path / "w.duckdb", names, count)


KILLED = """
import sys
from datetime import UTC, datetime
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow
from weighin.results.store import Store
row = EvaluationRow("killed", "k", "key-base", "accuracy", {}, {}, "m1", datetime.now(UTC), 1.0, "ok")
store = Store(sys.argv[1])
store.latest_run()
print("ready", flush=True)
store.add_evaluation(row, [Sample(f"x{i}", 1.0, Metric("acc", "1")) for i in range(30_000)])
print("written", flush=True)
sys.stdin.read()
"""


@served
@pytest.mark.parametrize("delay", [0.2, 0.5, 1.0, 1.5])
def test_a_killed_writer_leaves_all_or_nothing_and_is_in_nobodys_way(shared: Server, delay: float) -> None:
    store = Store(shared.place)
    writer = subprocess.Popen([sys.executable, "-c", KILLED, shared.place], stdout=subprocess.PIPE, text=True)
    assert writer.stdout and writer.stdout.readline() == "ready\n"
    time.sleep(delay)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    counts = """select (select count(*) from evaluations where evaluation_id = 'killed') as evaluations,
        (select count(*) from samples where evaluation_id = 'killed') as samples"""
    found = store.rows(counts)[0]
    assert found in ({"evaluations": 0, "samples": 0}, {"evaluations": 1, "samples": 30_000})
    again = subprocess.run([sys.executable, "-c", KILLED, shared.place], capture_output=True, text=True, input="")
    assert again.stdout == "ready\nwritten\n" or "nothing was written" in again.stderr  # its request arrived after all
    assert store.rows(counts) == [{"evaluations": 1, "samples": 30_000}]
    with remote.writing(Address("127.0.0.1", int(shared.place.rsplit(":", 1)[1])), 10) as con:
        con.execute("delete from evaluations where evaluation_id = 'killed'")
        for table in ("samples", "metrics", "evaluation_scores"):
            con.execute(f"delete from {table} where evaluation_id = 'killed'")


@served
def test_a_killed_server_has_kept_what_it_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with serving(path) as server:
        port = int(server.place.rsplit(":", 1)[1])
        store = Store(server.place, patience=0.2)
        fillings = [evaluation(f"e{n}") for n in range(5)]
        for row in fillings:
            store.add_evaluation(row, shares([1, 0]))
        server.process.kill()
        server.process.wait()
        with pytest.raises(StoreError, match="nothing was written"):
            store.add_evaluation(evaluation("late"), shares([1]))
        with pytest.raises(StoreError, match="no server answers"):
            store.add_evaluation(evaluation("late"), shares([1]))
        with serving(path, port):
            store.add_evaluation(evaluation("after"), shares([1]))
            found = store.rows("select evaluation_id from evaluations order by all")
            assert [row["evaluation_id"] for row in found] == ["after", *(row.evaluation_id for row in fillings)]


SECOND = """
import sys
from weighin.results import remote
from weighin.results.address import place
with remote.writing(place(sys.argv[1]), 60) as con:
    con.execute("update machines set hostname = hostname || ' and second'")
"""


@served
def test_one_of_two_that_touch_a_key_at_once_asks_again(shared: Server) -> None:
    """The other transaction is held open in the middle: without asking again the second writer would be refused."""
    address = place(shared.place)
    assert isinstance(address, Address)
    first = remote.Session(address)
    first.run("begin; update machines set hostname = 'first'")
    process = subprocess.Popen([sys.executable, "-c", SECOND, shared.place])
    time.sleep(1.0)
    assert process.poll() is None, "it did not wait"
    first.run("commit")
    first.close()
    assert process.wait() == 0
    assert Store(shared.place).rows("select hostname from machines") == [{"hostname": "first and second"}]


@served
def test_the_secret_is_asked_for_and_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    with serving(path) as server:
        _write_everything(Store(server.place))
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        remote.close_idle()
        said = []
        for wrong, message in [("another-secret-of-16", "does not take this secret"), ("short", "16 characters")]:
            monkeypatch.setenv(TOKEN, wrong)
            with pytest.raises(StoreError, match=message) as caught:
                Store(server.place).latest_run()
            said.append(str(caught.value) + repr(caught.value.__cause__))
        monkeypatch.delenv(TOKEN)
        with pytest.raises(StoreError, match=TOKEN):
            Store(server.place).latest_run()
        printed = server.output()
    for text in (printed, *said):
        assert SECRET not in text and "another-secret" not in text
    assert SECRET.encode() not in arguments + b"".join(
        file.read_bytes() for file in tmp_path.iterdir() if file.is_file()
    )


@served
def test_through_a_server_nothing_but_the_store_can_be_reached(shared: Server, tmp_path: Path) -> None:
    address = place(shared.place)
    assert isinstance(address, Address)
    for sql in (
        "select * from read_text('/etc/hostname')",
        f"copy (select 1) to '{tmp_path}/x.csv'",
        f"attach '{tmp_path}/other.duckdb' as other",
        "set enable_external_access = true",
        "set quack_authentication_function = 'quack_nop_authorization'",
    ):
        with pytest.raises(duckdb.Error, match=r"disabled|locked"):
            remote.Session(address).run(sql)
    assert not list(tmp_path.iterdir())


@served
def test_a_query_cannot_write(shared: Server) -> None:
    store = Store(shared.place)
    for sql in ("delete from samples", "select nothing from nowhere", "selec"):
        with pytest.raises(StoreError, match="the query failed") as caught:
            store.query(sql)
        assert "\n" not in str(caught.value)
    assert store.latest_run() == "r1"


@served
def test_a_snapshot_does_not_see_what_is_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    fill(path, {"base": {"accuracy": shares([1, 0])}})
    with serving(path) as server:
        store = Store(server.place)
        with store.snapshot() as held:
            before = held.rows("select count(*) as n from evaluations")
            store.add_evaluation(evaluation("meanwhile"), shares([1]))
            assert held.rows("select count(*) as n from evaluations") == before == [{"n": 1}]
        assert store.rows("select count(*) as n from evaluations") == [{"n": 2}]


VERBS = [
    ["list", "runs"], ["show", "r1"], ["compare", "base", "small"], ["history", "accuracy.acc"],
    ["front", "--x", "energy.energy", "--y", "accuracy.acc", "--draws", "20"],
    ["export", "OUT.csv"], ["export", "OUT.json"], ["export", "OUT.md", "--what", "model-card"], ["doctor"],
]  # fmt: skip


@served
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_says_the_same_of_a_server_and_of_its_file(
    shared: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    grid: dict[str, Any] = {
        "base": {"accuracy": shares([1, 0, 1, 1, 0, 1] * 20), "energy": numbers([1.0] * 8, ENERGY)},
        "small": {"accuracy": shares([0, 0, 1, 1, 0, 1] * 20), "energy": numbers([0.5] * 8, ENERGY)},
    }
    path = tmp_path / "w.duckdb"
    fill(path, grid)
    said = []
    for where in (str(path), shared.place):
        out = tmp_path / "OUT"
        given = [part.replace("OUT", str(out)) for part in verb]
        assert main([*given, "--store", where]) == 0
        files = [file.read_text() for file in tmp_path.glob("OUT*")]
        said.append((capsys.readouterr().out.replace(where, "STORE").split(), files))
    assert said[0][1] == said[1][1]
    if verb != ["doctor"]:  # it counts other servers' runs, too
        assert said[0][0] == said[1][0]


@served
def test_an_older_store_is_brought_up_to_date_before_it_is_served(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    fill(path, {"base": {"accuracy": shares([1, 0])}}, Setting())
    with duckdb.connect(str(path)) as con:
        con.execute("create or replace view latest_scores as select 1 as old")
        con.execute("update meta set value = 'old' where key = 'views'")
    with serving(path) as server:
        assert len(Store(server.place).rows("select value from latest_scores")) == 1


def test_addresses_are_told_from_files(tmp_path: Path) -> None:
    assert place("quack:localhost") == Address("localhost", 9494)
    assert place("quack://10.0.0.1:80") == Address("10.0.0.1", 80) == place(Address("10.0.0.1", 80))
    assert str(place("quack:[::1]:80")) == "quack:[::1]:80"
    assert place(str(tmp_path / "quack.duckdb")) == tmp_path / "quack.duckdb"
    assert [Address(host).loopback for host in ("localhost", "127.0.0.1", "::1", "10.0.0.1", "0.0.0.0")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    for wrong in ("quack:", "quack:a b", "quack:host:0", "quack:host:99999", "quack:host:80/db", "quack:it's:80"):
        with pytest.raises(StoreError, match="quack:HOST:PORT"):
            place(wrong)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
numbers_ = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
values = st.none() | st.booleans() | numbers_ | text | st.lists(text, max_size=3)


@given(value=values)
def test_a_value_is_written_so_that_it_is_read_as_itself(value: Any) -> None:
    con = duckdb.connect()
    for sql in (f"select {remote._literal(value)}", f"select {remote._literal(['x', remote._literal(value)])}[2]"):
        found = con.execute(sql).fetchone()
        assert found is not None
        if sql.endswith("[2]"):
            found = con.execute(f"select {found[0]}").fetchone()
            assert found is not None
        assert found[0] == value


def test_times_are_written_with_their_zone() -> None:
    found = duckdb.connect().execute(f"select epoch_us({remote._literal(START)})").fetchone()
    assert found == (int(START.timestamp()) * 1_000_000,)
    assert datetime(2026, 1, 1, tzinfo=UTC) == START


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    for value in ("a\0b", object()):
        with pytest.raises(StoreError, match="cannot be sent"):
            remote._literal(value)
    with pytest.raises(StoreError, match="merge works on files"):
        merge(["quack:localhost"], tmp_path / "w.duckdb")


@served
def test_where_nobody_listens_one_message_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match="no server answers there; start one: weighin serve"):
        Store("quack:127.0.0.1:9", patience=0.3).latest_run()
    assert main(["serve", "--store", "quack:127.0.0.1:9"]) == 2
    assert "is a server already" in capsys.readouterr().err
