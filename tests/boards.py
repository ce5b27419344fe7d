"""A store for the tests of the page: two runs with every kind of gap, and labels that try to be more than text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stores import DISK, ENERGY, TTFT, evaluation, identity, machine, numbers, run_row, shares, variant
from weighin.results.records import Sample
from weighin.results.rows import Form
from weighin.results.store import Store

HOSTILE = "<script>alert(1)</script> [x](http://y) # big $x$ :red[y] `z`"
RUDE_REASON = "**no** counter <img src=http://y onerror=alert(2)> [click](http://y)"
RULES = [
    {"metric": "accuracy.acc", "variant": "int8", "margin": 0.05},
    {"metric": "memory.disk", "variant": HOSTILE},
    {"metric": "accuracy.acc", "variant": "sim", "margin": 0.02, "role": "watch"},
]
FORMS: dict[str, Form] = {"base": "dense", "int8": "packed", "sim": "simulated", HOSTILE: "dense"}
RIGHT = [1, 1, 1, 0] * 100

Given = list[Sample] | str
"""Samples, or the reason why there are none: `abstained: ...` or `failed: ...`."""

GRID: dict[str, dict[str, Given]] = {
    "base": {
        "accuracy": shares(RIGHT),
        "memory": numbers([2_000_000], DISK),
        "latency": numbers([0.01 + i / 1000 for i in range(9)], TTFT),
        "energy": numbers([0.5] * 6, ENERGY, "modelled"),
    },
    "int8": {
        "accuracy": shares(RIGHT),
        "memory": numbers([600_000], DISK),
        "latency": numbers([0.02 + i / 1000 for i in range(9)], TTFT),
        "energy": f"abstained: {RUDE_REASON}",
    },
    "sim": {
        "accuracy": "failed: out of memory",
        "memory": numbers([500_000], DISK),
        "latency": numbers([0.1 + i / 1000 for i in range(9)], TTFT),
        "energy": "abstained: no counter",
    },
    HOSTILE: {
        "accuracy": shares([0, *RIGHT[1:]]),
        "memory": numbers([3_000_000], DISK),
        "latency": numbers([0.02], TTFT),
        "energy": "abstained: no counter",
    },
}


def weigh(path: Path, run: str = "r1", order: int = 0, rules: Any = RULES, started: str = "ok") -> Store:
    """A store with one run of `GRID`."""
    store = Store(path)
    store.add_machine(machine())
    for label, form in FORMS.items():
        store.add_variant(variant(label))
        store.add_identity(identity(label, form=form))
    cells = [(label, suite) for label, suites in GRID.items() for suite in suites]
    labels = [(label, f"key-{label}") for label in GRID]
    store.start_run(replace(run_row(run, order=order), spec={"gate": rules}), labels, cells)
    for label, suite in cells:
        _keep(store, run, label, suite)
    if started == "ok":
        store.end_run(run, "ok")
    return store


def _keep(store: Store, run: str, label: str, suite: str) -> None:
    given = GRID[label][suite]
    status, _, reason = given.partition(": ") if isinstance(given, str) else ("ok", "", None)
    if status == "failed":
        store.set_cell(run, label, suite, status="failed", reason=reason)
        return
    row = evaluation(f"{run}-{label}-{suite}", label, suite, status=status, reason=reason)
    store.add_evaluation(row, [] if isinstance(given, str) else given, (run, label, suite))


def show(path: Path, monkeypatch: pytest.MonkeyPatch, page: str = "overview", **address: str) -> Any:
    """A page on a store, drawn once, at an address with these choices."""
    from streamlit.testing.v1 import AppTest

    import weighin.leaderboard

    monkeypatch.setenv("WEIGHIN_STORE", str(path))
    app = Path(weighin.leaderboard.__file__).with_name("app.py")
    found = AppTest.from_file(str(app), default_timeout=120).run()
    if page != "overview" or address:
        if page != "overview":
            found.switch_page(f"page_{page}.py")
        for name, value in address.items():
            found.query_params[name] = value
        found.run()
    return found


def said(page: Any) -> str:
    """What `st.text` printed."""
    return "\n".join(text.value for text in page.text)


def choice(page: Any, label: str) -> Any:
    """The selectbox or multiselect of that label."""
    return next(box for kind in ("selectbox", "multiselect") for box in page.get(kind) if box.label == label)


def table(page: Any, column: str) -> Any:
    """The first table that has this column."""
    return next(each.value for each in page.dataframe if column in each.value.columns)
