"""The folder is the registry; a user's package joins it through entry points."""

from pathlib import Path

import pytest

from weighin.harness import registry
from weighin.results.errors import WeighinError


def test_a_file_is_a_plugin_and_a_helper_is_not() -> None:
    for kind, folder in registry.FOLDERS.items():
        files = {p.stem.rstrip("_") for p in (Path(registry.__file__).parent.parent / folder).glob("*.py")}
        assert set(registry.entries(kind)) == {name for name in files if not name.startswith("_")}


def test_entry_points_bring_plugins_of_ones_own(test_plugins: Path) -> None:
    assert "halve" in registry.entries("stage")
    assert registry.stage("halve").parameters.model_fields["factor"].default == 0.5
    assert registry.suite("count").metrics[0].name == "value"


def test_a_second_plugin_of_a_name_is_refused(test_plugins: Path) -> None:
    (test_plugins / "weighin_test_plugins-1.0.dist-info" / "entry_points.txt").write_text(
        "[weighin.adapters]\ngptq = tp_halve\n"
    )
    with pytest.raises(WeighinError, match=r"two plugins are called 'gptq': weighin\.adapters\.gptq and tp_halve"):
        registry.entries("stage")


def test_an_entry_point_to_nowhere_is_named(test_plugins: Path) -> None:
    (test_plugins / "weighin_test_plugins-1.0.dist-info" / "entry_points.txt").write_text(
        "[weighin.suites]\nx = no_such_module\n"
    )
    with pytest.raises(WeighinError, match="no_such_module is not installed"):
        registry.entries("suite")


def test_a_file_without_its_function_is_named(test_plugins: Path) -> None:
    (test_plugins / "tp_halve.py").write_text("other = 1\n")
    with pytest.raises(WeighinError, match="a function 'halve' decorated with @stage"):
        registry.stage("halve")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(WeighinError, match=r"no suite 'latancy'\. Did you mean 'latency'"):
        registry.suite("latancy")


def test_what_is_missing_comes_with_its_command() -> None:
    assert registry.missing(["json", "no_such_package"]) == ["no_such_package"]
    assert registry.install_command(["llmcompressor"]) == "pip install 'weighin[quantize]'"
    assert registry.install_command(["peft"]) == "pip install 'weighin[train]'"
    assert registry.install_command(["peft", "llmcompressor"]) == "pip install 'weighin[all]'"
    assert registry.install_command(["no_such_package"]) == "pip install no-such-package"
