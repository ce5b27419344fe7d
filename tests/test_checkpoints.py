"""A checkpoint appears whole or not at all, and what a killed build left is swept away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.harness import checkpoints

KEY = "k" * 64


def test_published_whole(tmp_path: Path) -> None:
    with checkpoints.building(KEY) as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
        assert checkpoints.find(KEY) is None
        made = checkpoints.publish(folder, KEY, {"stage": "x"})
    assert checkpoints.find(KEY) == made
    assert checkpoints.manifest(made) == {"key": KEY, "stage": "x"}
    assert (made.path / "model.safetensors").read_bytes() == b"weights"


def test_a_build_that_fails_leaves_nothing() -> None:
    with pytest.raises(RuntimeError), checkpoints.building(KEY) as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert checkpoints.find(KEY) is None and not list(checkpoints.place(KEY).parent.iterdir())


def test_the_second_builder_of_a_key_is_no_error() -> None:
    for _ in range(2):
        with checkpoints.building(KEY) as folder:
            (folder / "model.safetensors").write_bytes(b"weights")
            checkpoints.publish(folder, KEY, {})
    assert checkpoints.find(KEY) is not None


def test_a_killed_build_is_swept_away_and_a_living_one_stays() -> None:
    code = "import os; from weighin.harness import checkpoints\nwith checkpoints.building('z'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], env=dict(os.environ))
    root = checkpoints.place(KEY).parent
    assert len(list(root.glob(".making-*"))) == 1
    with checkpoints.building(KEY) as folder:
        assert list(root.glob(".making-*")) == [folder]
        checkpoints.sweep()
        assert folder.is_dir()


def test_bytes_count_the_base_that_an_adapter_needs(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    (base / "model.safetensors").write_bytes(b"x" * 100)
    (base / "config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"x" * 7)
    assert checkpoints.disk_bytes(base) == 100 and checkpoints.disk_bytes(adapter) == 7
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "' + str(base) + '"}')
    assert checkpoints.disk_bytes(adapter) == 107
