"""What the board costs in headless Chromium: `python -m benchmarks.board_speed FILE`, seconds a page and a filter.

A page is whole once the server's script has ended and no spinner or stale part is left. *Load*: its address is opened
anew, Streamlit's own code and all. *Turn*: a click on its link, from another page. Both warm: one time before is not
counted. The same on a store that does not exist is the floor: what Streamlit and the browser take for one sentence.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.big_store import VARIANTS, make
from tests.browsing import TITLES, Watched, browsing, served


def timed(act: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def told(times: list[float]) -> str:
    """The least and the median of several."""
    return f"{min(times):.2f} | {statistics.median(times):.2f}"


def measure(path: Path, rounds: int) -> None:
    """Print a table: each page, then filters of the leaderboard."""
    with browsing() as browser:
        with tempfile.TemporaryDirectory() as empty, served(Path(empty) / "none.duckdb") as address:
            floor = Watched(browser, address)
            times = [timed(lambda: floor.open("", "Overview")) for _ in range(rounds + 1)][1:]
            print(f"| no store: the floor | – | {told(times)} | – | – |", flush=True)
            floor.page.close()
        with served(path) as address:
            watched = Watched(browser, address)
            for name, title in TITLES.items():
                times = [timed(lambda at=(name, title): watched.open(*at)) for _ in range(rounds + 1)]  # type: ignore[misc]
                turns = []
                for _ in range(rounds):
                    watched.turn("instruments" if name != "instruments" else "runs")
                    turns.append(timed(lambda to=name: watched.turn(to)))  # type: ignore[misc]
                print(f"| {title} | {times[0]:.2f} | {told(times[1:])} | {told(turns)} |", flush=True)
            print(f"| a filter of the leaderboard | – | – | – | {told(_filters(watched, rounds))} |")


def _filters(watched: Watched, rounds: int) -> list[float]:
    """Seconds from a search for a variant to the sentence that tells what is left and a page at rest."""
    page, times = watched.open("leaderboard", "Leaderboard"), []
    for text in ["12", "3", "40", "7", "25", "9", "1"][: rounds + 1]:
        left = sum(text in f"variant-{v}" for v in range(VARIANTS))
        page.get_by_label("Find a variant").fill(text)
        began = time.monotonic()
        page.keyboard.press("Enter")
        page.get_by_text(f"{left} of {VARIANTS} variants").wait_for()
        watched.drawn("Leaderboard")
        times.append(time.monotonic() - began)
    return times[1:]


def main() -> None:
    """Make the store unless it is there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not given.file.exists():
        make(given.file)
    print(f"Load average {os.getloadavg()[0]:.1f} at the beginning.")
    print("| page | first, s | load, least | median | turn, least | median |\n|---|---|---|---|---|---|")
    measure(given.file, given.rounds)
    print(f"Load average {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    main()
