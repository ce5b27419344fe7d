"""Rows a second into a store: python benchmarks/store_rate.py PLACE WRITERS EVALUATIONS [ROUNDS].

PLACE is a file that is made anew each round, or quack:HOST:PORT. Each evaluation has 10 samples. Prints every round.
"""

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

WRITER = """
import sys
from datetime import UTC, datetime
from weighin.results.records import Metric, Sample
from weighin.results.rows import EvaluationRow
from weighin.results.store import Store
store, acc, now = Store(sys.argv[1], patience=600), Metric("acc", "1"), datetime.now(UTC)
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    row = EvaluationRow(f"{sys.argv[2]}-{i}", str(i), "key", "suite", {}, {}, "m", now, 1.0, "ok")
    store.add_evaluation(row, [Sample(f"item{j}", float(j % 2), acc) for j in range(10)])
"""


def once(place: str, writers: int, evaluations: int) -> float:
    """Seconds from the moment that all writers are ready to the last one's end."""
    mark = uuid4().hex[:8]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place, f"{mark}-{n}", str(evaluations)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(writers)
    ]
    for each in started:
        assert each.stdout and each.stdout.readline() == "ready\n"
    began = time.monotonic()
    for each in started:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    assert [each.wait() for each in started] == [0] * writers
    return time.monotonic() - began


if __name__ == "__main__":
    place, writers, evaluations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for _ in range(int(sys.argv[4]) if len(sys.argv) > 4 else 3):
        if not place.startswith("quack:"):
            Path(place).unlink(missing_ok=True)
        seconds = once(place, writers, evaluations)
        total = writers * evaluations
        print(f"{place} {writers} writers: {seconds:.1f} s, {total / seconds:.1f} evaluations/s")
