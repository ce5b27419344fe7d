"""The page in a real browser: what only a browser shows, such as sorting, requests to the outside, and scripts run."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.boards import weigh

playwright = pytest.importorskip(
    "playwright.sync_api", reason="a browser test needs playwright: pip install playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("a browser test needs chromium: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served page."""
    store = weigh(tmp_path_factory.mktemp("browser") / "w.duckdb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = Path(__file__).resolve().parent.parent / "leaderboard" / "app.py"
    options = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    command = [sys.executable, "-m", "streamlit", "run", str(app), *options, "--browser.gatherUsageStats=false"]
    server = subprocess.Popen(command, env={**os.environ, "WEIGHIN_STORE": str(store.path)})
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


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stays_at_home_and_runs_nothing(address: str, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.get_by_text("Every figure of this run").wait_for(timeout=90_000)
    chart = page.locator("[data-testid=stVegaLiteChart]")
    chart.scroll_into_view_if_needed()
    chart.locator("canvas, svg").first.wait_for(timeout=30_000)
    box = chart.bounding_box()
    for step in range(40):  # over the points, so that tooltips show the labels
        page.mouse.move(box["x"] + box["width"] * step / 40, box["y"] + box["height"] * (0.25 + 0.2 * (step % 3)))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not wrong
    local = (address, address.replace("http", "ws"), "data:", "blob:")
    assert not [url for url in asked if not url.startswith(local)]
    assert page.locator("img[src^='http://y']").count() == 0 and page.locator("a[href^='http://y']").count() == 0
    page.close()
