"""What every plugin owes, tested for each one there is: adding a file adds its tests."""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weighin.harness import registry
from weighin.harness.plan import make_plan
from weighin.harness.progress import Display
from weighin.harness.run import job_names, weigh
from weighin.harness.spec import parse_spec
from weighin.results.store import Store

STAGES, SUITES = sorted(registry.entries("stage")), sorted(registry.entries("suite"))
PLUGINS = [("stage", name) for name in STAGES] + [("suite", name) for name in SUITES]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_it_is_documented(kind: registry.Kind, name: str) -> None:
    assert len(registry.entry(kind, name).doc()) > 40, "the file's docstring is its entry in the catalogue"
    assert registry.load(kind, name).call.__doc__


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_its_signature_is_its_schema(kind: registry.Kind, name: str) -> None:
    plugin = registry.load(kind, name)
    given = list(inspect.signature(plugin.call).parameters.values())
    leading = 2 if kind == "stage" else 1
    assert all(p.kind is p.KEYWORD_ONLY for p in given[leading:]), "parameters are keyword-only"
    assert all(p.annotation is not p.empty for p in given[leading:]), "parameters have types"
    schema = plugin.parameters
    assert set(schema.model_fields) == {p.name.rstrip("_") for p in given[leading:]}
    example = schema.model_validate(dict(plugin.example))
    plain = example.model_dump(mode="json")
    assert json.loads(example.model_dump_json()) == plain, "they are plain JSON in a key"
    assert schema.model_validate(plain) == example, "and come back from it"


@pytest.mark.parametrize("name", SUITES)
def test_its_metrics_are_named_once_with_a_unit(name: str) -> None:
    metrics = registry.suite(name).metrics
    assert len({m.name for m in metrics}) == len(metrics)
    assert all(m.unit for m in metrics)


def carry_out(document: dict[str, Any]) -> tuple[str, Store]:
    store = Store(os.environ["WEIGHIN_STORE"])
    plan = make_plan(parse_spec(document), store)
    assert plan is not None
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        run, _ = weigh(plan, store, display)
    return run, store


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_makes_a_checkpoint_that_reloads_and_differs(name: str, pico_dir: Path) -> None:
    """Through the engine: made in its own process, reloaded from disk in another, compared with its parent."""
    if absent := registry.missing(registry.stage(name).needs):
        pytest.skip(f"{name} needs {', '.join(absent)}: {registry.install_command(absent)}")
    example = dict(registry.stage(name).example)
    variants, suites = {"v": [{name: example}]}, {"memory": {"new_tokens": 2}}
    run, store = carry_out({"base": str(pico_dir), "variants": variants, "suites": suites})
    cells = store.rows("select label, status, reason from cells where run_id = ?", [run])
    assert {c["status"] for c in cells} == {"ok"}, cells
    (card,) = store.rows("select * from variant_cards where run_id = ? and variant = 'v'", [run])
    assert card["stage"] == name and card["kernel"] != "unknown" and card["dtypes"]
    if registry.stage(name).changes == "weights":
        assert card["distance"] is None or card["distance"] > 0


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_yields_numbers_or_says_why_not(name: str, pico_dir: Path) -> None:
    if absent := registry.missing(registry.suite(name).needs):
        pytest.skip(f"{name} needs {', '.join(absent)}: {registry.install_command(absent)}")
    example = dict(registry.suite(name).example)
    variants = {"packed": "int8", "served": {"speculate": {"method": "lookup"}}}
    run, store = carry_out({"base": str(pico_dir), "variants": variants, "suites": {name: example}})
    rows = store.rows("select * from scores where run_id = ?", [run])
    assert {r["variant"] for r in rows} == {"base", "packed", "served"}
    for row in rows:
        assert row["status"] in ("ok", "abstained"), row
        assert (row["value"] is None) == (row["status"] != "ok")
        assert row["reason"] or row["value"] is not None
        assert row["status"] != "ok" or (row["unit"] and (row["ci_low"] is not None or row["ci_reason"]))
    assert any(r["status"] == "ok" for r in rows if r["variant"] != "base"), "it measures something somewhere"
