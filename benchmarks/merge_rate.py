"""Seconds to join 100 stores of 10,000 samples each: python benchmarks/merge_rate.py FOLDER [ROUNDS]."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from weighin.results.merge import merge
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow
from weighin.results.store import Store


def fill(path: Path, number: int) -> None:
    """A store with ten evaluations of 1,000 samples."""
    acc, now = Metric("acc", "1"), datetime.now(UTC)
    with Store(path).together() as held:
        for e in range(10):
            row = EvaluationRow(f"{number}-{e}", f"{number}-{e}", "key", "suite", {}, {}, "m", now, 1.0, "ok")
            held.add_evaluation(row, [Sample(f"item{i}", float(i % 2), acc) for i in range(1_000)])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{n}.duckdb" for n in range(100)]
    for n, path in enumerate(paths):
        if not path.exists():
            fill(path, n)
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
        target = folder / "all.duckdb"
        target.unlink(missing_ok=True)
        for what in ("into a new store", "once more"):
            began = time.monotonic()
            added = merge(paths, target)
            print(f"{what}: {time.monotonic() - began:.1f} s, {added.samples} samples were new", flush=True)
