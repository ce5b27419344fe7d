"""The files for continuous integration: what they run exists, and the three documented gates end as they say."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness.cli import parser
from weighin.harness.spec import read_spec

ROOT = Path(__file__).resolve().parent.parent
EXIT = {"pass": 0, "fail": 1, "open": 3}


def scripts() -> list[str]:
    """Every command line in the files that begins with our own name."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "action.yml").read_text())
    gitlab: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())
    text = [step.get("run", "") for step in action["runs"]["steps"]] + gitlab["weigh-in"]["script"]
    return [found for line in "\n".join(text).splitlines() for found in re.findall(r"weighin (?:run|gate)[^|]*", line)]


def test_what_the_files_run_is_understood() -> None:
    assert len(scripts()) == 4
    for line in scripts():
        line = line.replace('${AGAINST:+--against "$AGAINST"}', "--against last-green").strip()
        assert parser().parse_args(line.replace('"', "").split()[1:]).verb in ("run", "gate")


@pytest.mark.parametrize("name", EXIT)
def test_the_examples_are_valid(name: str) -> None:
    assert read_spec(str(ROOT / "examples" / f"gate-{name}.yaml")).gate


def weighin(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "weighin.harness.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )


@pytest.mark.slow
def test_the_three_gates_end_as_they_say_and_an_unchanged_rebuild_passes() -> None:
    for name, code in EXIT.items():
        spec = f"examples/gate-{name}.yaml"
        assert weighin("run", spec).returncode == 0
        judged = weighin("gate", spec, "--format", "junit")
        assert judged.returncode == code, judged.stdout + judged.stderr
        assert judged.stdout.startswith("<?xml")
    spec = "examples/gate-pass.yaml"
    again = weighin("run", spec, "--again", "accuracy", "--again", "fidelity")
    assert again.returncode == 0
    rebuilt = weighin("gate", spec, "--against", "last-green")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
