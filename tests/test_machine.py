"""What this machine says of itself and of where it stands."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from weighin.harness import machine


def test_packages_are_those_that_are_installed() -> None:
    found = machine.packages()
    assert found["torch"] == metadata.version("torch")
    assert found["duckdb"] == metadata.version("duckdb")


def test_the_commit_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.commit() is None, "no repository"
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    log = subprocess.run(["git", "log", "--format=%H"], capture_output=True, text=True, check=True)
    assert machine.commit() == log.stdout.strip()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.commit() is None, "no git"
