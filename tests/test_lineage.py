"""The lineage of a variant: every stage with what it cost, what it changed, and what else went into it."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from weighin.harness.lineage import run_tree, variant_tree
from weighin.harness.plan import job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.errors import WeighinError
from weighin.results.store import Store


@pytest.fixture
def store(pico_dir: Path) -> Store:
    document = {
        "base": str(pico_dir),
        "variants": {
            "sparse": {"prune": {"method": "magnitude"}},
            "fast": [{"from": "sparse"}, "int8", {"speculate": {"draft": "sparse"}}],
        },
        "suites": {"memory": {"new_tokens": 2}},
    }
    store = Store(os.environ["WEIGHIN_STORE"])
    plan = make_plan(parse_spec(document), store)
    assert plan is not None
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        _, ok = weigh(plan, store, display)
    assert ok
    return store


def printed(show: object, *arguments: object) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, *arguments)  # type: ignore[operator]
    return console.export_text()


def test_the_tree_of_a_variant(store: Store) -> None:
    text = printed(variant_tree, store, "fast")
    places = [text.index(word) for word in ("base", "sparse  prune", "  int8", "fast  speculate", "draft: sparse")]
    assert places == sorted(places), "from the base down to the variant, and what else went into it"
    assert text.count("cost ") == 3 and text.count("peak ") == 3
    assert "J modelled" in text or "J counter" in text or "no energy meter" in text
    assert "zeros    0.0 % → 50.0 %" in text
    assert "form     dense → packed" in text
    assert "dtypes   float32" in text and "int8" in text
    assert "distance 0 from its parent" in text, "serving leaves the weights alone"
    assert max(map(len, text.splitlines())) <= 80
    row = store.rows("select others, made_joules, made_joules_source from variants where stage = 'speculate'")[0]
    assert row["others"] == {
        "draft": [store.rows("select variant_key from labels where label = 'sparse'")[0]["variant_key"]]
    }
    assert (row["made_joules"] is None) == (row["made_joules_source"] is None)


def test_the_tree_of_a_run_and_a_wrong_name(store: Store) -> None:
    run = store.latest_run()
    text = printed(run_tree, store, run)
    assert all(name in text for name in ("base", "sparse", "fast")) and "bytes" not in text
    with pytest.raises(WeighinError, match="Did you mean 'sparse'"):
        variant_tree(Console(), store, "sparze")
