"""The board in a real browser: what only a browser shows, such as clicks on a chart, requests, scripts."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import urlopen

import pytest

from tests.boards import HOSTILE
from tests.stores import ACC, DISK, Grid, Setting, fill, flipped, numbers
from weighin.results.records import Sample
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="a browser test needs playwright: pip install playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("a browser test needs chromium: apt-get install chromium", allow_module_level=True)
PAGES = importlib.import_module("weighin.leaderboard.page").PAGES

LONG = "[link](http://y) **" + "N" * 10_000
PATIENCE = 120_000
"""Milliseconds: the machine may be busy, and a clock decides no test."""


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
    """The board, served as `weighin board` serves it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "weighin.harness.cli", "board", "--headless", "--port", str(port)]
    server = subprocess.Popen([*command, "--store", str(store.path)], env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A browser's page with what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.address, self.asked, self.wrong = address, [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _said(self, message: Any) -> None:
        # Streamlit asks below a page's own address first where its server is, and then above it
        if message.type == "error" and "/_stcore/" not in message.location["url"]:
            self.wrong.append(message.text)

    def open(self, path: str, title: str) -> Any:
        self.page.goto(f"{self.address}/{path}")
        return self.drawn(title)

    def drawn(self, title: str) -> Any:
        """Wait until the page of that title is whole."""
        self.page.get_by_role("heading", level=1, name=title).wait_for()
        self.page.wait_for_function(
            "!document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner], [data-stale=true]')"
            " && document.querySelector('.stApp')?.dataset.testScriptState !== 'running'"
        )
        return self.page

    def stayed_home(self) -> None:
        """Nothing went wrong, and nothing but this machine was asked."""
        assert not self.wrong
        local = (self.address, self.address.replace("http", "ws"), "data:", "blob:")
        assert self.asked and not [url for url in self.asked if not url.startswith(local)]
        assert self.page.locator("img[src^='http://y']").count() == 0
        assert self.page.locator("a[href^='http://y']").count() == 0
        assert self.page.locator("[data-testid=stException]").count() == 0


TITLES = {name: "Pareto front" if name == "pareto" else name.capitalize() for name in PAGES}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_stays_at_home_and_runs_nothing(
    address: str, browser: Any, width: int, scheme: str, tmp_path: Path
) -> None:
    for name, title in TITLES.items():
        watched = Watched(browser, address, width, scheme)
        page = watched.open("" if name == "overview" else name, title)
        page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        watched.stayed_home()
        page.close()


def test_from_a_filter_over_a_point_to_a_flipped_item(address: str, browser: Any, tmp_path: Path) -> None:
    watched = Watched(browser, address)
    page = watched.open("leaderboard", "Leaderboard")
    page.get_by_label("Find a variant").fill("int")
    page.keyboard.press("Enter")
    page.get_by_text("1 of 4 variants, ranked by accuracy.acc.").wait_for()
    assert parse_qs(urlparse(page.url).query)["text"] == ["int"]
    page.screenshot(path=tmp_path / "filtered.png")

    page.get_by_role("link", name="Pareto").click()
    watched.drawn("Pareto front")
    page.locator("[data-testid=stVegaLiteChart] .mark-symbol.role-mark").last.locator("path").first.click()
    watched.drawn("Variant")
    variant = parse_qs(urlparse(page.url).query).get("variant", [LONG])[0]
    assert variant in ("base", "int8", HOSTILE)
    page.get_by_text("How it was made").wait_for()
    page.screenshot(path=tmp_path / "variant.png")

    watched.open("compare?" + "a=base&b=" + HOSTILE.replace("#", "%23").replace("&", "%26"), "Compare")
    page.get_by_text("44 items differ: 40 lost, 4 won.").wait_for()
    before = parse_qs(urlparse(page.url).query)["item"]
    items = page.locator("[data-testid=stDataFrame]").nth(1)
    items.scroll_into_view_if_needed()
    items.click(position={"x": 17, "y": 35 + 35 + 17})  # the tick box of the second row
    page.wait_for_function("was => !location.search.includes(was)", arg=f"item={before[0]}")
    page.get_by_text("The item that is ticked").wait_for()
    page.screenshot(path=tmp_path / "flipped.png", full_page=True)
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
