"""The board in a real browser: what only a browser shows, such as clicks on a chart, requests, scripts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boards import HOSTILE
from tests.browsing import CHROMIUM, Watched, browsing, look, served, walk
from tests.stores import ACC, DISK, Grid, Setting, fill, flipped, numbers
from weighin.results.records import Sample
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")
pytest.importorskip("playwright", reason="a browser test needs playwright: pip install playwright")
if CHROMIUM is None:
    pytest.skip("a browser test needs chromium: apt-get install chromium", allow_module_level=True)

LONG = "[link](http://y) **" + "N" * 10_000


def answered(values: list[int]) -> list[Sample]:
    """Questions with two choices and the log-likelihood of each; the right one is the first."""
    found = []
    for i, value in enumerate(values):
        told = {
            "prompt": f"Question {i} {HOSTILE}?", "choices": [" yes <b>bold</b>", " no"], "target": "0",
            "responses": [[-1.0 - i / 100, True], [-2.0 if value else -0.5, False]],
        }  # fmt: skip
        found.append(Sample(f"item{i:03}", float(value), ACC, detail=told))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs of four variants, two of them with labels that try to be more than text."""
    good, bad = flipped(120, 40, 4)
    grid: Grid = {
        "base": {"accuracy": answered(good), "memory": numbers([4_000_000], DISK)},
        "int8": {"accuracy": answered(good), "memory": numbers([1_000_000], DISK)},
        HOSTILE: {"accuracy": answered(bad), "memory": numbers([2_000_000], DISK)},
        LONG: {"accuracy": answered(bad), "memory": f"{HOSTILE} gave nothing"},
    }
    path = tmp_path_factory.mktemp("browser") / "w.duckdb"
    fill(path, grid, Setting(run="r0"))
    return fill(path, grid, Setting(run="r1", order=24))


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with served(store.path) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.mark.parametrize("screen", [(1280, "light"), (390, "dark")])
def test_every_page_stays_at_home_and_runs_nothing(
    address: str, browser: Any, screen: tuple[int, str], tmp_path: Path
) -> None:
    look(browser, address, screen, tmp_path)


def test_from_a_filter_over_a_point_to_a_flipped_item(address: str, browser: Any, tmp_path: Path) -> None:
    watched = Watched(browser, address)
    assert walk(watched, "int", tmp_path) in ("int8", HOSTILE)
    watched.open("compare?" + "a=base&b=" + HOSTILE.replace("#", "%23").replace("&", "%26"), "Compare")
    watched.page.get_by_text("44 items differ: 40 lost, 4 won.").wait_for()
    watched.stayed_home()
    watched.page.close()


def test_the_first_page_is_found_by_its_name_too(address: str, browser: Any) -> None:
    watched = Watched(browser, address)
    page = watched.open("overview?run=r0", "Overview")
    page.wait_for_function("location.pathname === '/'")
    assert watched.asks("run") == "r0"
    page.get_by_text("Run r0 of spec").wait_for()
    watched.stayed_home()
    page.close()


def test_the_keyboard_reaches_the_pages(address: str, browser: Any) -> None:
    watched = Watched(browser, address)
    page = watched.open("", "Overview")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip().endswith("Leaderboard"):
            break
    page.keyboard.press("Enter")
    watched.drawn("Leaderboard")
    watched.stayed_home()
    page.close()
