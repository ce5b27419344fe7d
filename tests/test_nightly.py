"""`weighin nightly` and `weighin history` in real processes: the lock, the time limit, exit codes, the report."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stores import Setting, fill, numbers, shares
from tests.test_night import RATIO
from weighin.harness.history import ASCII, sparkline
from weighin.harness.nightly import Deadline, Held, TimeUp, alone
from weighin.results.store import Store

WEIGHIN = [sys.executable, "-m", "weighin.harness.cli"]
HOLD = """
import sys, time
from pathlib import Path
from weighin.harness.nightly import alone
with alone(Path(sys.argv[1]), "spec demo"):
    print("held", flush=True)
    time.sleep(600)
"""


def weighin(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*WEIGHIN, *arguments], capture_output=True, text=True, cwd=place, stdin=subprocess.DEVNULL, timeout=600
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def store() -> Store:
    return Store(os.environ["WEIGHIN_STORE"])


def write_spec(place: Path, pico: Path, suites: dict[str, Any], **other: Any) -> str:
    path = place / "night.yaml"
    path.write_text(yaml.safe_dump({"base": str(pico), "suites": suites, **other}, sort_keys=False))
    return str(path)


def test_a_second_night_is_refused_and_a_killed_one_leaves_the_lock(tmp_path: Path, pico_dir: Path) -> None:
    path = Path(os.environ["WEIGHIN_STORE"])
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        second = weighin("nightly", write_spec(tmp_path, pico_dir, {"memory": {}}), place=tmp_path)
        assert second.returncode == 4
        assert f"a night is at work here already: process {first.pid}, spec demo, since 20" in second.stderr
        assert not path.exists(), "it measured nothing"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with alone(path, "spec next"), pytest.raises(Held, match=f"process {os.getpid()}, spec next"), alone(path, "x"):
        pass


def test_nights_on_a_model(tmp_path: Path, pico_dir: Path) -> None:
    """A green night, and a green one against it."""
    spec = write_spec(
        tmp_path, pico_dir, {"memory": {}}, variants={"small": {"shrink": {"layers": 1}}},
        gate=[{"metric": "memory.disk", "variant": "small"}],
    )  # fmt: skip
    first = weighin("nightly", spec, place=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "the first night" in " ".join(first.stdout.split())
    second = weighin("nightly", spec, "--out", str(tmp_path / "report.md"), place=tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    runs = [row["run_id"] for row in store().rows("select run_id from runs order by started_at")]
    assert f"against the last green run {runs[0]}" in " ".join(second.stdout.split())
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Nightly: ✅ green") and "2 of 2 came out as before." in report
    assert not store().rows("select 1 from cells where reused"), "a night measures everything anew"
    told = weighin("history", "memory.disk", "--variant", "small", place=tmp_path)
    assert told.returncode == 0 and "2 nights" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_the_time_limit_keeps_what_was_measured(tmp_path: Path, pico_dir: Path) -> None:
    """The alarm clock is rung by hand once the first suite is in, so that no slow machine decides the test."""
    spec = write_spec(tmp_path, pico_dir, {"memory": {}, "latency": {"requests": 1_000_000}})
    night = subprocess.Popen(
        [*WEIGHIN, "nightly", spec, "--timeout", "9000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    asked = "select suite, status, reason from cells order by suite"
    for _ in range(1000):
        rows = store().rows(asked) if store().exists() else []
        if [row["status"] for row in rows] == ["running", "ok"]:
            break
        assert night.poll() is None, night.communicate()[0]
        time.sleep(0.1)
    night.send_signal(signal.SIGALRM)
    told, _ = night.communicate(timeout=120)
    assert night.returncode == 4 and "Traceback" not in told, told
    rows = store().rows(asked)
    assert [(r["suite"], r["status"]) for r in rows] == [("latency", "failed"), ("memory", "ok")]
    assert rows[0]["reason"] == "not measured: the time limit of 9000 s"
    assert store().rows("select status from runs")[0]["status"] == "failed"
    reports = list((Path(os.environ["WEIGHIN_HOME"]) / "nights").glob("*.md"))
    assert len(reports) == 1 and "**Cut short:** the time limit of 9000 s" in reports[0].read_text()


def test_the_clock_rings_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(TimeUp), Deadline(0.1, began + 0.1).kept():
        time.sleep(30)
    assert time.monotonic() - began < 20
    with Deadline(None, None).kept():
        pass
    with Deadline(60, time.monotonic() + 60).kept():
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly", "no.yaml"], "no such file"),
        (["nightly", "default", "--timeout", "0"], "--timeout 0: give seconds"),
        (["nightly", "default", "--timeout", "nan"], "--timeout nan: give seconds"),
        (["history", "latency.ttft"], "there is no store yet"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = weighin(*arguments, place=tmp_path)
    assert done.returncode == 2 and message in done.stderr


def test_a_series_as_text(tmp_path: Path) -> None:
    path = Path(os.environ["WEIGHIN_STORE"])
    for night, ratio in enumerate([1.0, 1.1, 1.05]):
        grid = {"small": {"latency": numbers([ratio], RATIO), "accuracy": shares([1, 0])}}
        fill(path, grid, Setting(run=f"n{night}", order=24 * night))
    done = weighin("history", "latency.ratio", place=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[1:4] == ["latency.ratio · small", "  spec spec.yaml, 3 nights, lower is better", "  _@+  1.00 to 1.10"]
    assert [line.split() for line in lines[-3:]] == [
        ["2026-01-01", "00:00", "1.00"], ["2026-01-02", "00:00", "1.10"], ["2026-01-03", "00:00", "1.05"],
    ]  # fmt: skip
    assert weighin("history", "latency.ratio", "--variant", "x", place=tmp_path).returncode == 2


def test_a_line_of_characters() -> None:
    assert sparkline([1.0, 2.0, 3.0], ASCII) == "_+@"
    assert sparkline([5.0, 5.0], ASCII) == "++"
