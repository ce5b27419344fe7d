"""What a checkpoint turns out to be: planted changes are found by their size, whatever the format."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weighin.harness.identity import identify
from weighin.harness.model import TransformersModel
from weighin.harness.plugin import Checkpoint


def changed(pico: Path, out: Path, change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The identity of a copy of the pico model with `change(name, tensor)` applied to each tensor of its file."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(pico, out)
    tensors = load_file(pico / "model.safetensors")
    save_file({n: change(n, t).contiguous() for n, t in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    return identify(TransformersModel(Checkpoint(out, "child"), {"parent": Checkpoint(pico, "parent")}))


def test_the_same_weights_are_no_distance_away(pico_dir: Path, tmp_path: Path) -> None:
    found = changed(pico_dir, tmp_path / "same", lambda _, tensor: tensor)
    assert found["distance"] == 0.0 and found["form"] == "dense" and found["kernel"].startswith("aten::")
    assert found["disk_bytes"] == (tmp_path / "same" / "model.safetensors").stat().st_size
    assert found["dtypes"].keys() == {"float32"}


@pytest.mark.parametrize("factor", [0.5, 1.001, 2.0])
def test_scaled_weights_are_as_far_as_the_factor_says(pico_dir: Path, tmp_path: Path, factor: float) -> None:
    found = changed(pico_dir, tmp_path / "scaled", lambda _, tensor: tensor * factor)
    assert found["distance"] == pytest.approx(abs(factor - 1), rel=1e-4)


def test_one_changed_norm_is_seen(pico_dir: Path, tmp_path: Path) -> None:
    found = changed(pico_dir, tmp_path / "norm", lambda name, t: t * 1.5 if name == "model.norm.weight" else t)
    assert 0 < found["distance"] < 0.5


def test_zeros_are_counted(pico_dir: Path, tmp_path: Path) -> None:
    def halve(name: str, tensor: Any) -> Any:
        tensor = tensor.clone()
        if "proj" in name:
            tensor[:, ::2] = 0
        return tensor

    assert changed(pico_dir, tmp_path / "zeros", halve)["sparsity"] == pytest.approx(0.5)


def test_another_shape_is_no_distance_but_a_reason(pico_dir: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(pico_dir, tmp_path / "narrow")
    config = LlamaConfig.from_pretrained(pico_dir)
    config.intermediate_size = 128
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "narrow")
    child = TransformersModel(Checkpoint(tmp_path / "narrow", "c"), {"parent": Checkpoint(pico_dir, "p")})
    found = identify(child)
    assert found["distance"] is None and "mlp" in found["distance_reason"]


def test_16_bit_weights_take_half_the_memory(pico_dir: Path, tmp_path: Path) -> None:
    import json

    import torch

    full = changed(pico_dir, tmp_path / "full", lambda _, tensor: tensor)
    config = json.loads((pico_dir / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    half_config = tmp_path / "cfg"
    shutil.copytree(pico_dir, half_config)
    (half_config / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    half = changed(half_config, tmp_path / "half16", lambda _, tensor: tensor.to(torch.bfloat16))
    assert half["dtypes"].keys() == {"bfloat16", "float32"}, "the rotary table stays float32"
    assert half["memory_bytes"] == pytest.approx(full["memory_bytes"] / 2, rel=0.01)
    assert half["parameters"] == full["parameters"]
