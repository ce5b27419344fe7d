"""The board in a real browser on the store of `make demo` and on the large one: the flows that people walk.

Slow: the demo takes minutes. A demo's store that is there already is taken where `WEIGHIN_DEMO_STORE` names it; it is
copied and never written. Pictures go to the directory that `WEIGHIN_SHOTS` names.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.big_store import NIGHTS, VARIANTS
from benchmarks.big_store import make as make_large

from tests.browsing import CHROMIUM, TITLES, Watched, browsing, look, served, walk
from weighin.results.store import Store

pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
pytest.importorskip("altair", reason="the page needs altair: pip install 'weighin[board]'")
pytest.importorskip("playwright", reason="a browser test needs playwright: pip install playwright")
if CHROMIUM is None:
    pytest.skip("a browser test needs chromium: apt-get install chromium", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def demo(path: Path) -> Path:
    """The demo's store: a copy of the one that is named, else what `make demo` runs writes it."""
    given = os.environ.get("WEIGHIN_DEMO_STORE")
    if given:
        shutil.copy(given, path)
    else:
        command = [sys.executable, "-m", "weighin.harness.cli", "run", "--store", str(path)]
        subprocess.run(command, check=True, cwd=path.parent, env={**os.environ, "WEIGHIN_HOME": str(path.parent)})
    (run,) = Store(path).rows("select spec_name, status from runs order by started_at desc limit 1")
    assert run == {"spec_name": "default", "status": "ok"}
    return path


def large(path: Path) -> Path:
    """500 variants, 40 metrics, 365 nights, a million samples."""
    assert make_large(path) >= 1_000_000
    return path


@pytest.fixture(scope="module", params=[demo, large], ids=lambda make: make.__name__)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The address of a board, and a browser."""
    path = request.param(tmp_path_factory.mktemp("flows") / "weighin.duckdb")
    with served(path) as address, browsing() as browser:
        yield address, browser


@pytest.fixture
def shots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where pictures go: one directory a store."""
    found = Path(os.environ.get("WEIGHIN_SHOTS", tmp_path)) / request.node.callspec.params["opened"].__name__
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.mark.parametrize("screen", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_every_page_opens_and_asks_nobody(opened: tuple[str, Any], screen: tuple[int, str], shots: Path) -> None:
    address, browser = opened
    look(browser, address, screen, shots)


def test_from_a_filter_over_a_point_to_a_flipped_item(opened: tuple[str, Any], shots: Path) -> None:
    address, browser = opened
    watched = Watched(browser, address)
    assert walk(watched, "4", shots)
    for name in TITLES:  # and by its links to every page, without a new load
        watched.turn(name)
    watched.stayed_home()
    watched.page.close()


def test_the_large_store_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    store = Store(large(tmp_path / "large.duckdb"))
    (found,) = store.rows(
        """select (select count(*) from labels where run_id = (select run_id from latest_run)) as variants,
               (select count(*) from runs) as nights, (select count(distinct metric) from metrics) as metrics"""
    )
    assert found == {"variants": VARIANTS, "nights": NIGHTS + 1, "metrics": 40}
