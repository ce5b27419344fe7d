"""What every plugin owes, tested for each one there is: adding a file adds its tests."""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import lend
from weighin.harness import registry
from weighin.harness.plan import job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.store import Store

STAGES, SUITES = sorted(registry.entries("stage")), sorted(registry.entries("suite"))
HERE = [name for name in STAGES if not registry.stage(name).environment]
ABROAD = [name for name in STAGES if registry.stage(name).environment]
"""Stages with an environment of their own, which takes long to make: tried where it is there, and not by default."""
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


Weighed = tuple[str, Store]


def carry_out(place: Path, document: dict[str, Any], environment: str = "") -> Weighed:
    """A whole run in a place of its own, with an environment that is lent to it: its id and its store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHIN_HOME", str(place / "home"))
        if environment:
            lend(environment, place / "home")
        store = Store(place / "weighin.duckdb")
        plan = make_plan(parse_spec(document), store)
        assert plan is not None
        with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
            run, _ = weigh(plan, store, display)
    return run, store


def installed(kind: registry.Kind, names: list[str]) -> dict[str, dict[str, Any]]:
    """The plugins whose packages are there, each with the parameters of its example."""
    found = {name: registry.load(kind, name) for name in names}
    return {name: dict(plugin.example) for name, plugin in found.items() if not registry.missing(plugin.needs)}


def skip_unless_installed(kind: registry.Kind, name: str) -> None:
    if absent := registry.missing(registry.load(kind, name).needs):
        pytest.skip(f"{name} needs {', '.join(absent)}: {registry.install_command(absent)}")


@pytest.fixture(scope="module")
def made(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Weighed:
    """Every stage alone, through the engine: made in its own process, reloaded from disk in another."""
    variants = {f"by-{name}": [{name: example}] for name, example in installed("stage", HERE).items()}
    suites = {"memory": {"new_tokens": 2}}
    return carry_out(tmp_path_factory.mktemp("stages"), {"base": str(pico_dir), "variants": variants, "suites": suites})


@pytest.fixture(scope="module")
def weighed(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Weighed:
    """Every suite on a base, a packed variant and one that is served by a draft, without any network."""
    variants = {"packed": "int8", "served": {"speculate": {"method": "lookup"}}}
    return carry_out(
        tmp_path_factory.mktemp("suites"),
        {"base": str(pico_dir), "variants": variants, "suites": installed("suite", SUITES)},
    )


@pytest.mark.parametrize("name", HERE)
def test_a_stage_makes_a_checkpoint_that_reloads_and_differs(name: str, made: Weighed) -> None:
    skip_unless_installed("stage", name)
    check_stage(name, *made)


@pytest.mark.slow
@pytest.mark.parametrize("name", ABROAD)
def test_so_does_one_with_an_environment_of_its_own(name: str, pico_dir: Path, tmp_path: Path) -> None:
    """Beside it every suite has numbers of what it made, or says why not."""
    stage = registry.stage(name)
    variants = {f"by-{name}": [{name: dict(stage.example)}]}
    suites = installed("suite", SUITES)
    document = {"base": str(pico_dir), "variants": variants, "suites": suites}
    run, store = carry_out(tmp_path, document, stage.environment)
    check_stage(name, run, store)
    rows = store.rows("select * from scores where run_id = ? and variant = ?", [run, f"by-{name}"])
    assert {row["suite"] for row in rows if row["status"] == "ok"} >= {"accuracy", "fidelity", "latency", "memory"}


def check_stage(name: str, run: str, store: Store) -> None:
    cells = store.rows("select status, reason from cells where run_id = ? and label = ?", [run, f"by-{name}"])
    assert {c["status"] for c in cells} <= {"ok", "abstained"}, cells
    assert {"status": "ok", "reason": None} in cells and all(c["reason"] for c in cells if c["status"] != "ok"), cells
    (card,) = store.rows("select * from variant_cards where run_id = ? and variant = ?", [run, f"by-{name}"])
    assert card["stage"] == name and card["kernel"] != "unknown" and card["dtypes"]
    if registry.stage(name).changes == "weights":
        assert card["distance"] is None or card["distance"] > 0


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_yields_numbers_or_says_why_not(name: str, weighed: Weighed) -> None:
    skip_unless_installed("suite", name)
    run, store = weighed
    rows = store.rows("select * from scores where run_id = ? and suite = ?", [run, name])
    assert {r["variant"] for r in rows} == {"base", "packed", "served"}
    for row in rows:
        assert row["status"] in ("ok", "abstained"), row
        assert (row["value"] is None) == (row["status"] != "ok")
        assert row["reason"] or row["value"] is not None
        assert "no network" not in (row["reason"] or "")
        assert row["status"] != "ok" or (row["unit"] and (row["ci_low"] is not None or row["ci_reason"]))
    assert any(r["status"] == "ok" for r in rows if r["variant"] != "base"), "it measures something somewhere"
