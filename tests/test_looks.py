"""Looks at a growing number of items: which suites grow, and a run that stops where its rules are decided."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness.looks import look_of, looks
from weighin.harness.spec import SpecError, parse_spec
from weighin.results.errors import WeighinError
from weighin.results.store import Store

RULE = {"metric": "accuracy.world_facts/acc", "variant": "small", "margin": 0.5}


def document(model: str, **gate: Any) -> dict[str, Any]:
    return {
        "base": model,
        "variants": {"small": "int8"},
        "suites": {"accuracy": {"tasks": ["world_facts"]}, "memory": {"new_tokens": 2}},
        "gate": {"looks": [20, 40, 80], "rules": [RULE], **gate},
    }


def test_only_what_the_gate_asks_about_grows(pico_dir: Path) -> None:
    each = looks(parse_spec(document(str(pico_dir))))
    assert [spec.suites["accuracy"]["limit"] for spec in each] == [20, 40, 80]
    assert len({str(spec.suites["memory"]) for spec in each}) == 1
    assert [look_of(spec.source) for spec in each] == [1, 2, 3]


def test_a_spec_without_looks_is_one_look(pico_dir: Path) -> None:
    spec = parse_spec({**document(str(pico_dir)), "gate": [RULE]})
    assert looks(spec) == [spec] and look_of(spec.source) == 1


def test_looks_must_grow(pico_dir: Path) -> None:
    with pytest.raises(SpecError, match="looks must grow"):
        parse_spec(document(str(pico_dir), looks=[40, 20]))


def test_a_gate_without_items_cannot_look_again(pico_dir: Path) -> None:
    rule = {"metric": "memory.disk", "variant": "small"}
    with pytest.raises(WeighinError, match="none of memory has a `limit` that could grow"):
        looks(parse_spec(document(str(pico_dir), rules=[rule])))


def test_a_run_stops_at_the_look_that_decides(pico_dir: Path, tmp_path: Path) -> None:
    """With a margin of 50 points 20 items are enough: later looks are not made, and the store says which it was."""
    spec = tmp_path / "release.yaml"
    spec.write_text(yaml.safe_dump(document(str(pico_dir))), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "weighin.harness.cli", "run", str(spec)], capture_output=True, text=True, env=os.environ
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "gate at look 1 of 3" in ran.stdout and "PASS" in ran.stdout
    store = Store(os.environ["WEIGHIN_STORE"])
    assert len(store.rows("select * from runs")) == 1
    (verdict,) = store.rows("select * from verdicts")
    assert (verdict["look"], verdict["outcome"]) == (1, "pass") and verdict["evidence"]["n"] == 20
    assert "97.8 % sure" in verdict["why"]  # the bound of one look among three
