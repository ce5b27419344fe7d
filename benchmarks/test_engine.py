"""What the engine itself costs: planning, keeping and reading results. Run with `make bench`; figures in README.md."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from weighin.harness.plan import make_plan
from weighin.harness.spec import read_spec
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow, RunRow
from weighin.results.store import Store

ACC = Metric("task/acc", unit="1")


@pytest.mark.parametrize("verb", ["--help", "list", "plan"])
def test_a_verb_in_a_fresh_process(benchmark: Any, verb: str, tmp_path: Path) -> None:
    environment = {**os.environ, "WEIGHIN_STORE": str(tmp_path / "s.duckdb"), "WEIGHIN_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "weighin.harness.cli", verb]
    benchmark.pedantic(lambda: subprocess.run(command, env=environment, capture_output=True, check=True), rounds=5)


def test_the_plan_of_the_default_spec(benchmark: Any, tmp_path: Path) -> None:
    spec, store = read_spec("default"), Store(tmp_path / "s.duckdb")
    benchmark(lambda: make_plan(spec, store))


def filled(path: Path, variants: int, items: int) -> Store:
    """A store with one run of so many variants, one suite, so many items each."""
    store = Store(path)
    now = datetime.now(UTC)
    labels = [f"v{i}" for i in range(variants)]
    run = RunRow("run", {}, "spec", None, {}, "machine", now)
    store.start_run(run, [(label, label) for label in labels], [(label, "suite") for label in labels])
    for label in labels:
        store.add_evaluation(*evaluation(label, items), ("run", label, "suite"))
    return store


def evaluation(label: str, items: int) -> tuple[EvaluationRow, list[Sample]]:
    row = EvaluationRow(label, label, label, "suite", {}, {}, "machine", datetime.now(UTC), 1.0, "ok")
    return row, [Sample(f"item{i}", float(i % 3 == 0), ACC) for i in range(items)]


def test_keeping_an_evaluation_of_100_000_samples(benchmark: Any, tmp_path: Path) -> None:
    store = filled(tmp_path / "s.duckdb", 1, 1)
    numbers = iter(range(100))
    benchmark.pedantic(
        lambda prepared: store.add_evaluation(*prepared),
        setup=lambda: ((evaluation(f"e{next(numbers)}", 100_000),), {}),
        rounds=5,
    )


def test_reading_the_scores_of_a_store_with_a_million_samples(benchmark: Any, tmp_path: Path) -> None:
    store = filled(tmp_path / "s.duckdb", 100, 10_000)
    rows = benchmark(lambda: store.rows("select * from latest_scores"))
    assert len(rows) == 100
