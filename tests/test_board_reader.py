"""A board that is read while a run writes: no page ever fails, however the two meet."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.boards import show, weigh

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")

from weighin.leaderboard.page import PAGES

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.boards import weigh
place = 1
while True:
    weigh(Path(sys.argv[1]), f"r{place}", place)
    print(place, flush=True)
    place += 1
"""
"""Keeps one run after the other in the store, each cell in a transaction of its own, as `weighin run` does."""


@pytest.mark.slow
def test_pages_are_read_for_a_minute_while_a_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weigh(tmp_path / "w.duckdb", "r0").path
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as writer:
        try:
            ends, drawn = time.monotonic() + 60, 0
            while time.monotonic() < ends or drawn < len(PAGES):
                page = show(path, monkeypatch, PAGES[drawn % len(PAGES)])
                assert not page.exception, [each.message for each in page.exception]
                said = [each.value for each in page.warning]  # an open gate is a warning too, and no failure
                assert all(each.startswith("No verdict yet") for each in said), [each.value for each in page.text]
                drawn += 1
            assert writer.poll() is None, "the writer was never locked out for good"
        finally:
            writer.kill()
        written = (writer.stdout.read() if writer.stdout else "").split()
    assert len(written) >= 2, written
