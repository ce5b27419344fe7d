"""The command line in real processes: exit codes, one clear message for bad input, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def weighin(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "weighin.harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def spec(folder: Path, text: str) -> str:
    path = folder / "spec.yaml"
    path.write_text(text)
    return str(path)


def test_help_and_version() -> None:
    assert "exit codes" in weighin("--help").stdout
    assert weighin("--version").stdout.startswith("weighin 0.")
    assert weighin().returncode == 2
    assert weighin("weigh").returncode == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: reference:base\nsuites: {acuracy: {}}", "suites: no suite 'acuracy'. Did you mean 'accuracy'?"),
        ("base: ./nowhere\nsuites: {memory: {}}", "base.model: no directory ./nowhere"),
        ("base: reference:base\nsuites: {accuracy: {tasks: [world_fact]}}", "no lm-eval task 'world_fact'. Did you"),
        ("base: reference:base\nsuites: {accuracy: {tasks: [./no.yaml]}}", "suites.accuracy: tasks: no file ./no.yaml"),
        ("base: reference:base\nsuites: {fidelity: {data: reference:none}}", "no reference text 'none'"),
        ("base: reference:base\nvariants: {v: [{gptq: {data: no.txt}}]}\nsuites: {memory: {}}", "gptq: data: no file"),
        ("base: [", "is not YAML"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_bad_input_is_one_message_and_exit_2(verb: str, text: str, message: str, tmp_path: Path) -> None:
    run = weighin(verb, spec(tmp_path, text), cwd=tmp_path)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr + run.stdout
    assert not Path(os.environ["WEIGHIN_STORE"]).exists(), "no half-written store"


@pytest.mark.parametrize("content", [b"not a database", b""])
def test_a_file_that_is_no_store_is_refused_and_kept(content: bytes, tmp_path: Path, pico_dir: Path) -> None:
    store = tmp_path / "notes.duckdb"
    store.write_bytes(content)
    run = weighin("run", spec(tmp_path, f"base: {pico_dir}\nsuites: {{memory: {{}}}}"), "--store", str(store))
    if content:
        assert run.returncode == 2 and str(store) in run.stderr and "Traceback" not in run.stderr
        assert store.read_bytes() == content
    else:
        assert run.returncode in (0, 2), "an empty file may become a store or be refused, but in words"
        assert "Traceback" not in run.stderr


def test_reading_verbs_without_a_store_say_what_to_do() -> None:
    for command in (
        ["compare", "a", "b"],
        ["export", "x.csv"],
        ["front", "--x", "a.b", "--y", "c.d"],
        ["gate"],
        ["list", "runs"],
        ["show", "nothing"],
    ):
        run = weighin(*command)
        assert run.returncode in (0, 2) and "Traceback" not in run.stderr, command
        assert run.returncode == 0 or run.stderr.startswith("weighin: "), command


def test_list_show_plan_doctor(tmp_path: Path) -> None:
    listed = weighin("list").stdout
    assert "gptq" in listed and "accuracy" in listed and "default" in listed
    assert "group_size" in weighin("show", "gptq").stdout
    planned = weighin("plan").stdout
    assert "cells to measure" in planned and "•" in planned
    assert "extras" in weighin("doctor").stdout


@pytest.mark.usefixtures("test_plugins")
def test_exit_codes_from_run_to_export(
    pico_dir: Path, tmp_path: Path, test_plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(test_plugins))
    text = f"""
base: {pico_dir}
variants: {{half: halve, bad: explode}}
suites: {{count: {{}}, memory: {{new_tokens: 2}}}}
gate: [{{metric: memory.disk, variant: half, margin: 0}}]
"""
    path = spec(tmp_path, text)
    ran = weighin("run", path)
    assert ran.returncode == 4, "a stage failed"
    assert "the fuse was short" in ran.stdout and "PASS" in ran.stdout
    assert "\x1b" not in ran.stdout, "plain text in a pipe"
    assert weighin("gate", path).returncode == 0
    worse = text.replace("variant: half", "variant: base, against: half").replace("margin: 0", "margin: 0.0")
    assert weighin("gate", spec(tmp_path, worse)).returncode == 0
    undecided = spec(tmp_path, text.replace("variant: half", "variant: bad"))
    assert weighin("gate", undecided).returncode == 3
    compared = weighin("compare", "base", "half")
    assert compared.returncode == 0 and "\n  disk ↓\n" in compared.stdout
    told = json.loads(weighin("compare", "base", "half", "--json").stdout)
    assert (told["a"]["name"], told["b"]["name"]) == ("base", "half") and told["comparisons"][0]["unit"]
    itself = weighin("compare", "half", "half")
    assert "compared with itself" in itself.stdout
    out = tmp_path / "scores.csv"
    fronted = weighin("front", "--x", "memory.disk", "--y", "count.value")
    assert fronted.returncode == 0 and "on the front\n" in fronted.stdout and "\x1b" not in fronted.stdout
    assert weighin("export", str(out)).returncode == 0 and "variant" in out.read_text().splitlines()[0]
    assert weighin("export", str(tmp_path / "x.docx")).returncode == 2
    assert weighin("show", "half").stdout.count("halve") >= 1
    assert weighin("show", "hlaf").returncode == 2
    assert "spec  failed" in weighin("list", "runs").stdout
