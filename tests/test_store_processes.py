"""The store among processes: readers and writers wait for each other, and a kill loses at most what was in flight."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stores import KL, evaluation, fill, numbers, shares
from weighin.results.errors import StoreError
from weighin.results.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0, 1])}})


def _python(code: str, *args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True)


HOLD = """
import sys, time, duckdb
con = duckdb.connect(sys.argv[1], read_only=sys.argv[3] == "read")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
con.close()
"""


def _held(store: Store, seconds: float, how: str = "write") -> "subprocess.Popen[str]":
    holder = _python(HOLD, str(store.path), str(seconds), how)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    return holder


def test_a_reader_waits_for_a_writer_of_another_process(store: Store) -> None:
    holder = _held(store, 1.0)
    start = time.monotonic()
    assert store.latest_run() == "r1"
    assert time.monotonic() - start > 0.3
    assert holder.wait() == 0


def test_a_writer_waits_for_a_reader_of_another_process(store: Store) -> None:
    holder = _held(store, 1.0, "read")
    store.set_label("r1", "base", "other")
    assert holder.wait() == 0


def test_patience_ends_with_a_message(store: Store) -> None:
    holder = _held(store, 60)
    try:
        with pytest.raises(StoreError, match=r"Gave up after 0\.3 s"):
            Store(store.path, patience=0.3).query("select 1")
    finally:
        holder.kill()
        holder.wait()
    assert store.latest_run() == "r1"


def test_writers_of_many_processes_take_turns(store: Store) -> None:
    code = """
import sys
from weighin.results.store import Store
store = Store(sys.argv[1], patience=60)
for i in range(4):
    store.set_cell("r1", sys.argv[2], f"suite{i}", status="running")
"""
    writers = [_python(code, str(store.path), f"label{w}") for w in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert store.rows("select count(*) as n from cells where status = 'running'") == [{"n": 12}]


KILLED = """
import os, sys
from datetime import datetime, UTC
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow
from weighin.results.store import Store

def samples():
    for i in range(20_000):
        yield Sample(f"x{i}", 1.0, Metric("acc", "1"))

row = EvaluationRow("killed", "k", "key-base", "accuracy", {}, {}, "m1", datetime.now(UTC), 1.0, "ok")
store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline() if sys.argv[2] == "wait" else None
store.add_evaluation(row, samples(), ("r1", "base", "accuracy"))
print("written", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_a_killed_writer_leaves_all_of_an_evaluation_or_nothing(store: Store, delay: float) -> None:
    writer = _python(KILLED, str(store.path), "go")
    assert writer.stdout and writer.stdout.readline() == "ready\n"
    time.sleep(delay)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    _check_all_or_nothing(store)


def test_a_kill_between_the_statements_of_a_transaction_leaves_nothing(store: Store) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from weighin.results.database import writing
with writing(Path(sys.argv[1]), 5) as con:
    con.execute("insert into evaluations select 'killed', * exclude (evaluation_id) from evaluations")
    con.execute("insert into samples select 'killed', s.* exclude (evaluation_id) from samples s, range(200_000)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert _python(code, str(store.path)).wait() == -signal.SIGKILL
    assert store.rows("select count(*) as n from evaluations where evaluation_id = 'killed'") == [{"n": 0}]
    _check_all_or_nothing(store)


def _check_all_or_nothing(store: Store) -> None:
    found = store.rows(
        """select (select count(*) from evaluations where evaluation_id = 'killed') as evaluations,
               (select count(*) from samples where evaluation_id = 'killed') as samples,
               (select count(*) from metrics where evaluation_id = 'killed') as metrics,
               (select count(*) from cells where evaluation_id = 'killed') as cells"""
    )
    assert found[0] in (
        {"evaluations": 0, "samples": 0, "metrics": 0, "cells": 0},
        {"evaluations": 1, "samples": 20_000, "metrics": 1, "cells": 1},
    )
    store.add_evaluation(evaluation("after"), numbers([1.0], KL))
    assert store.rows("select value from evaluation_scores where evaluation_id = 'after'") == [{"value": 1.0}]
