"""The board in headless Chromium: served as `weighin board` serves it, and watched for what it asks and what fails."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TITLES = {"overview": "Overview", "leaderboard": "Leaderboard", "pareto": "Pareto front", "variant": "Variant",
          "compare": "Compare", "nightly": "Nightly", "instruments": "Instruments", "runs": "Runs"}  # fmt: skip
"""The first heading of each page, by its name."""
PATIENCE = 120_000
"""Milliseconds: the machine may be busy, and a clock decides no test."""
WHOLE = """() => document.querySelector('h1')
    && document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner], [data-stale=true]')"""
"""True once a page has come to rest."""


@contextmanager
def served(store: Path | str) -> Iterator[str]:
    """The address of a board on a store, a file or a server's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "weighin.harness.cli", "board", "--headless", "--port", str(port)]
    server = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.DEVNULL, env=dict(os.environ))
    try:
        while server.poll() is None:
            try:
                urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        assert server.poll() is None, "the board ended before it answered"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def browsing() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A browser's page with what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        self.address: str = address
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _said(self, message: Any) -> None:
        # Streamlit asks below a page's own address first where its server is, and then above it
        if message.type == "error" and "/_stcore/" not in message.location["url"]:
            self.wrong.append(message.text)

    def open(self, path: str, title: str) -> Any:
        """Load an address and wait for its page."""
        self.page.goto(f"{self.address}/{path}")
        return self.drawn(title)

    def drawn(self, title: str) -> Any:
        """Wait until the page of that title is whole."""
        self.page.get_by_role("heading", level=1, name=title).wait_for()
        self.page.wait_for_function(WHOLE)
        return self.page

    def turn(self, name: str) -> Any:
        """Click on the link to another page."""
        self.page.get_by_role("link", name=name.capitalize()).first.click()
        return self.drawn(TITLES[name])

    def asks(self, name: str) -> str:
        """What the address asks for under this name; "" where it asks for nothing."""
        return parse_qs(urlparse(self.page.url).query).get(name, [""])[0]

    def stayed_home(self) -> None:
        """Nothing went wrong, and nothing but this machine was asked, by no socket either."""
        assert not self.wrong
        home = (self.address, self.address.replace("http", "ws"), "data:", f"blob:{self.address}")
        assert self.address.startswith("http://127.0.0.1:")
        assert [url for url in self.asked if url.startswith("ws:")], "Streamlit speaks through a socket"
        assert not [url for url in self.asked if not url.startswith(home)]
        assert self.page.locator("img[src^='http://y']").count() == 0
        assert self.page.locator("a[href^='http://y']").count() == 0
        assert self.page.locator("[data-testid=stException]").count() == 0
        assert not self.page.get_by_text("Page not found").count()


def walk(watched: Watched, text: str, shots: Path) -> str:
    """From a filter over a point of the front to its variant, to a comparison and to a flipped item, all by clicks.

    `text` is what to look for on the leaderboard. Returns the variant whose point was clicked; pictures go to `shots`.
    """
    page = watched.open("leaderboard", "Leaderboard")
    page.get_by_label("Find a variant").fill(text)
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"^\d+ of \d+ variants, ranked by ")).wait_for()
    page.wait_for_function(WHOLE)
    assert watched.asks("text") == text
    page.screenshot(path=shots / "filtered.png")

    watched.turn("pareto")
    points = page.locator("[data-testid=stVegaLiteChart] .mark-symbol.role-mark").last.locator("path")
    points.first.wait_for()
    told = [points.nth(n).get_attribute("aria-label") or "" for n in range(points.count())]
    named = [re.sub(r"(?s).*; variant: ", "", each).split("; across: ")[0] for each in told]
    page.screenshot(path=shots / "pareto.png")
    top = max(n for n, name in enumerate(named) if not name.endswith(("base", "variant-0")))  # nothing lies over it
    points.nth(top).click()

    watched.drawn("Variant")
    assert watched.asks("variant") in (named[top], ""), "the last of the spec needs no word in the address"
    page.get_by_text("How it was made").wait_for()
    page.screenshot(path=shots / "variant.png")

    page.get_by_role("button", name="Compare with its parent or base").click()
    watched.drawn("Compare")
    page.get_by_text(re.compile(r"^Of \d+ metrics that both have, ")).wait_for()
    page.screenshot(path=shots / "compare.png", full_page=True)

    before = watched.asks("item")
    items = page.locator("[data-testid=stDataFrame]").nth(1)
    items.scroll_into_view_if_needed()
    items.click(position={"x": 17, "y": 35 + 35 + 17})  # the tick box of the second row
    page.wait_for_function("was => new URLSearchParams(location.search).get('item') !== was", arg=before)
    watched.drawn("Compare")
    page.get_by_text("The item that is ticked").wait_for()
    page.screenshot(path=shots / "flipped.png", full_page=True)
    return named[top]


def look(browser: Any, address: str, screen: tuple[int, str], shots: Path) -> None:
    """Open each page on a screen (pixels wide, light or dark): it fits, asks nobody and says no error."""
    width, scheme = screen
    for name, title in TITLES.items():
        watched = Watched(browser, address, width, scheme)
        page = watched.open("" if name == "overview" else name, title)
        page.screenshot(path=shots / f"{name}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        watched.stayed_home()
        page.close()
