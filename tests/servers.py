"""Real processes for the tests of a shared store: a server, and writers that have nothing but its address."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from weighin.results.address import TOKEN

SECRET = "a-secret-of-the-tests-0123456789"


@dataclass
class Server:
    """A running `weighin serve`."""

    process: "subprocess.Popen[str]"
    place: str

    def output(self) -> str:
        """Stop it as an operator would, and return all that it printed after its greeting."""
        self.process.terminate()
        return "".join(self.process.communicate(timeout=60))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(path: Path, port: int | None = None) -> Iterator[Server]:
    """The store `path` behind a server process of its own."""
    port = port or free_port()
    command = [sys.executable, "-m", "weighin.harness.cli", "serve", "--store", str(path), "--port", str(port)]
    environment = {**os.environ, TOKEN: SECRET}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        greeting = [process.stdout.readline() for _ in range(2)]
        if "--store quack:" not in greeting[1]:
            raise AssertionError("".join(process.communicate()))
        yield Server(process, f"quack:127.0.0.1:{port}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


WRITER = """
import sys
from datetime import UTC, datetime
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow, IdentityRow, Machine, RunRow, VariantRow
from weighin.results.store import Store

place, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store, now, acc = Store(place, patience=300), datetime(2026, 1, 1, tzinfo=UTC), Metric("acc", "1")
store.add_machine(Machine("m", "host", "Linux", "cpu", 2, 1 << 30, None, {}))
store.start_run(
    RunRow(name, {}, "spec", None, {}, "m", now), [("v", "key-0")], [("v", f"suite{i}") for i in range(count)]
)
for i in range(count):
    key = f"key-{i % 5}"
    if i < 5:  # what every writer touches
        store.add_variant(VariantRow(key, None, key, None, {}, 0, now))
        store.add_identity(IdentityRow(key, "m", 1, 1, 1, {}, "dense", "mm", 0.0, None))
    row = EvaluationRow(f"{name}-{i}", f"{i}", key, f"suite{i}", {}, {}, "m", now, 1.0, "ok")
    samples = [Sample(f"item{j}", float((i + j) % 2), acc) for j in range(10)]
    store.add_evaluation(row, samples, (name, "v", f"suite{i}"))
store.end_run(name, "ok")
"""


def writers(places: list[str], count: int) -> "list[subprocess.Popen[bytes]]":
    """Processes that write `count` evaluations each, all at once: the n-th to the n-th place."""
    environment = {**os.environ, TOKEN: SECRET}
    return [
        subprocess.Popen([sys.executable, "-c", WRITER, place, f"writer{n}", str(count)], env=environment)
        for n, place in enumerate(places)
    ]


def check_written(path: Path, names: int, count: int) -> None:
    """Every row of so many writers is there once."""
    with duckdb.connect(str(path), read_only=True) as con:

        def one(sql: str) -> tuple[int, ...]:
            return con.execute(sql).fetchone() or ()

        total = names * count
        assert one("select count(*), count(distinct evaluation_id) from evaluations") == (total, total)
        assert one("select count(*), count(distinct (evaluation_id, item)) from samples") == (10 * total, 10 * total)
        assert one("select count(*) from evaluation_scores where value = 0.5 and n = 10") == (total,)
        assert one("select count(*), count(distinct evaluation_id) from cells where status = 'ok'") == (total, total)
        assert one("select count(*) from runs where status = 'ok'") == (names,)
        assert one("select count(*) from machines") == (1,)
        assert one("select count(*) from variants") == (min(5, count),)
        assert one("select count(*) from identities") == (min(5, count),)
