"""Keys can't lie: whatever can change a result changes the key, and nothing else does."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import keys, plan
from weighin.harness.spec import parse_spec

STEP: dict[str, Any] = {
    "parent": "p" * 64,
    "stage": "gptq",
    "params": {"bits": 4, "group_size": 128},
    "code": "c" * 64,
    "data": "d" * 64,
    "needs": {"llmcompressor": "0.14.0"},
}
STEP_MUTATIONS: list[tuple[str, Any]] = [
    ("parent", "q" * 64),
    ("stage", "rtn"),
    ("params", {"bits": 8, "group_size": 128}),
    ("params", {"bits": 4, "group_size": 64}),
    ("params", {"bits": 4}),
    ("params", {"bits": "4", "group_size": 128}),
    ("code", "e" * 64),
    ("data", "f" * 64),
    ("needs", {"llmcompressor": "0.14.1"}),
    ("needs", {"llmcompressor": "absent"}),
    ("needs", {}),
]


@pytest.mark.parametrize(("field", "value"), STEP_MUTATIONS)
def test_each_field_of_a_step_key_counts(field: str, value: Any) -> None:
    assert keys.step_key(**{**STEP, field: value}) != keys.step_key(**STEP)


EVALUATION: dict[str, Any] = {
    "variant": "v" * 64,
    "suite": "accuracy",
    "protocol": {
        "params": {"limit": 10},
        "data": "d",
        "code": "c",
        "packages": {"torch": "2.13.0"},
        "dtype": "auto",
        "scorer": "exact",
    },
    "machine": "m" * 64,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variant", "w" * 64),  # the answers of one model served for another: lm-evaluation-harness issues 2715, 4063
        ("suite", "latency"),
        ("machine", "n" * 64),
        *[
            ("protocol", {**EVALUATION["protocol"], name: value})
            for name, value in {
                "params": {"limit": 11},
                "data": "e",
                "code": "x",
                "packages": {"torch": "2.14.0"},
                "dtype": "float32",
                "scorer": "plain",
            }.items()
        ],
    ],
)
def test_each_field_of_an_evaluation_key_counts(field: str, value: Any) -> None:
    assert keys.evaluation_key(**{**EVALUATION, field: value}) != keys.evaluation_key(**EVALUATION)


def test_equal_work_has_equal_keys() -> None:
    turned = {**STEP, "params": dict(reversed(STEP["params"].items()))}
    assert keys.step_key(**turned) == keys.step_key(**STEP)
    assert len(keys.step_key(**STEP)) == 64
    assert len(keys.short(keys.step_key(**STEP))) == 32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, json_values)
def test_digests_differ_where_values_do(a: Any, b: Any) -> None:
    import json

    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (keys.digest(a) == keys.digest(b)) == same


CODE = '''"""What it does."""
from weighin.harness import stage
from weighin.adapters import {helper}

@stage()
def mine(parent, out, *, bits: int = 4):
    """Say."""
    return {body}
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE.format(helper="_none", body="bits + 1"))
    return path


def test_prose_keeps_the_key_and_code_changes_it(plugin: Path) -> None:
    before = keys.code_digest(plugin)
    plugin.write_text(
        "# a comment\n" + plugin.read_text().replace("Say.", "Say it better.").replace("What it", "That it")
    )
    assert keys.code_digest(plugin) == before
    plugin.write_text(plugin.read_text().replace("bits + 1", "bits + 2"))
    assert keys.code_digest(plugin) != before


@pytest.mark.parametrize("statement", ["from ._help import f", "from . import _help", "from ._help import f as g"])
def test_a_helper_counts_however_far_down(tmp_path: Path, statement: str) -> None:
    plugin, helper, deeper = tmp_path / "mine.py", tmp_path / "_help.py", tmp_path / "_deep.py"
    plugin.write_text(statement + "\n")
    helper.write_text("from ._deep import g\ndef f(): return g()\n")
    deeper.write_text("def g(): return 1\n")
    before = keys.code_digest(plugin)
    deeper.write_text("def g(): return 2\n")
    assert keys.code_digest(plugin) != before


def test_our_own_helpers_count() -> None:
    """Every helper that a plugin of ours imports is found in its closure."""
    root = Path(keys.__file__).resolve().parent.parent
    seen = {path.name for plugin in (root / "adapters").glob("[!_]*.py") for path in keys.closure(plugin)}
    assert {path.name for path in (root / "adapters").glob("_*.py")} <= seen


@pytest.mark.parametrize(("suite", "timed"), [("memory", True), ("latency", True), ("bias", False)])
def test_what_a_process_begins_with_counts_where_times_or_bytes_are_measured(
    suite: str, timed: bool, pico_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_spec({"base": str(pico_dir), "suites": {suite: {}}})
    first = plan.protocol(suite, spec.suites[suite], spec)
    other = tmp_path / "preload.py"
    other.write_text(plan.PROCESS[1].read_text() + "\nimport pandas\n")
    monkeypatch.setattr(plan, "PROCESS", (plan.PROCESS[0], other))
    second = plan.protocol(suite, spec.suites[suite], spec)
    assert (second["code"] != first["code"]) == timed
    assert {**second, "code": ""} == {**first, "code": ""}


def test_a_folder_is_its_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = keys.folder_digest(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "weighin.json").write_text("{}")
    assert keys.folder_digest(tmp_path) == before, "hidden files and our own manifest are no weights"
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    changed = keys.folder_digest(tmp_path)
    assert changed != before
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    assert keys.folder_digest(tmp_path) != changed


def test_versions_of_what_is_not_there() -> None:
    assert keys.versions(["no_such_package_at_all"]) == {"no_such_package_at_all": "absent"}
    assert keys.versions(["yaml"])["yaml"] != "absent", "an import name that is not the distribution's"


def test_what_was_found_in_a_text_is_kept_and_a_damaged_note_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weighin.harness import source

    text = '"""Prose."""\nfrom weighin.suites._score import spread\nimport json\nx = 1\n'
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path / "none"))
    source.source.cache_clear()
    first = source.source(text)
    assert first.imports == ((0, ("weighin.suites._score", "weighin.suites._score.spread")), (0, ("json",)))
    assert not (tmp_path / "none").exists(), "reading makes no home"
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path))
    source.source.cache_clear()
    assert source.source(text) == first
    (note,) = (tmp_path / "sources").iterdir()
    monkeypatch.setattr(source, "_parsed", None)
    source.source.cache_clear()
    assert source.source(text) == first, "from the note"
    monkeypatch.undo()
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path))
    for damage in ("", "{", "[1]", '["x", [1]]', "null"):
        note.write_text(damage)
        source.source.cache_clear()
        assert source.source(text) == first
    source.source.cache_clear()


def test_a_package_is_found_under_the_name_that_is_imported() -> None:
    from importlib import metadata

    found = keys.versions(["yaml", "torch", "no_such_package"])
    assert found["yaml"] == metadata.version("PyYAML") and found["no_such_package"] == "absent"
