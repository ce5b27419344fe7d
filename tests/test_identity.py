"""What a checkpoint turns out to be: planted changes are found by their size, whatever the format."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weighin.harness import structure
from weighin.harness.identity import identify
from weighin.harness.model import TransformersModel
from weighin.harness.plugin import Checkpoint
from weighin.harness.structure import Structure


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


@pytest.mark.parametrize("part", ["model.norm.weight", "model.embed_tokens.weight"])
def test_one_changed_part_is_seen_once(pico_dir: Path, tmp_path: Path, part: str) -> None:
    """The norm of all, and the embedding, which is the head too."""
    from safetensors.torch import load_file

    found = changed(pico_dir, tmp_path / "part", lambda name, t: t * 1.5 if name == part else t)
    squares = {name: float(t.double().square().sum()) for name, t in load_file(pico_dir / "model.safetensors").items()}
    assert found["distance"] == pytest.approx(0.5 * (squares[part] / sum(squares.values())) ** 0.5, rel=1e-4)


def test_biases_are_parameters_too(pico_dir: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 384, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(pico_dir).save_pretrained(tmp_path)
    assert any(name.endswith("q_proj.bias") for name, _ in model.named_parameters())
    found = identify(TransformersModel(Checkpoint(tmp_path, "biased"), {}))
    assert found["parameters"] == sum(p.numel() for p in model.parameters())


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


def restructured(
    pico: Path, out: Path, wanted: Structure, change: Callable[[Any, Any], None]
) -> tuple[dict[str, Any], Any]:
    """The identity of the pico model with another structure, after `change(child, parent)`; and the pico model."""
    from transformers import AutoModelForCausalLM

    from weighin.harness.identity import matrix

    shutil.copytree(pico, out)
    parent, child = (AutoModelForCausalLM.from_pretrained(pico) for _ in range(2))
    structure.apply(child, wanted)
    change(child, parent)
    child.save_pretrained(out)
    structure.write(out, wanted)
    found = identify(TransformersModel(Checkpoint(out, "child"), {"parent": Checkpoint(pico, "parent")}))
    for name in wanted.factors:
        layer = child.get_submodule(name)
        assert matrix(layer).allclose(layer.up.weight @ layer.down.weight)
    return found, parent


def size(model: Any) -> float:
    """Sum of squares of a model's weights, an embedding tied to the head once."""
    return sum(float(p.detach().square().sum()) for p in model.parameters())


RANK = 32  # a quarter of the pico model's layers of 128 inputs
FACTORS = {f"model.layers.{i}.mlp.{name}": RANK for i in (0, 1) for name in ("gate_proj", "up_proj")}


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_factorised_layer_counts_with_its_factors(pico_dir: Path, tmp_path: Path, scale: float) -> None:
    """The distance is that of the products: planted by hand from the singular values that were cut off."""
    import torch

    apart = 0.0

    def cut(child: Any, parent: Any) -> None:
        nonlocal apart
        for name in FACTORS:
            old = parent.get_submodule(name).weight.detach()
            left, values, right = torch.linalg.svd(old, full_matrices=False)
            layer = child.get_submodule(name)
            layer.up.weight.data = scale * left[:, :RANK] * values[:RANK]
            layer.down.weight.data = right[:RANK].contiguous()
            apart += float(((1 - scale) * values[:RANK]).square().sum() + values[RANK:].square().sum())

    found, parent = restructured(pico_dir, tmp_path / "factors", Structure(FACTORS), cut)
    saved = len(FACTORS) * (256 * 128 - RANK * (256 + 128))
    assert found["parameters"] == sum(p.numel() for p in parent.parameters()) - saved
    assert found["form"] == "dense", "half the elements in 32 bits are no packed format"
    assert found["distance"] == pytest.approx((apart / size(parent)) ** 0.5, rel=1e-4)
    bytes_before = (pico_dir / "model.safetensors").stat().st_size
    assert found["disk_bytes"] == pytest.approx(bytes_before - 4 * saved, abs=2000)


def test_zeros_in_factors_are_counted_in_the_factors(pico_dir: Path, tmp_path: Path) -> None:
    def halve(child: Any, _: Any) -> None:
        for name in FACTORS:
            child.get_submodule(name).down.weight.data[:, ::2] = 0

    found, parent = restructured(pico_dir, tmp_path / "zeros", Structure(FACTORS), halve)
    layers = [m for n, m in parent.named_modules() if n.endswith("proj") and n not in FACTORS]
    elements = sum(m.weight.numel() for m in layers) + len(FACTORS) * RANK * (256 + 128)
    assert found["sparsity"] == pytest.approx(len(FACTORS) * RANK * 64 / elements, rel=1e-6)


def test_shared_blocks_count_once_and_differ_where_they_stand(pico_dir: Path, tmp_path: Path) -> None:
    plain = changed(pico_dir, tmp_path / "plain", lambda _, tensor: tensor)
    found, parent = restructured(pico_dir, tmp_path / "shared", Structure({}, (0, 0)), lambda *_: None)
    first, second = ([p.detach() for p in block.parameters()] for block in parent.model.layers)
    block = sum(p.numel() for p in second)
    assert found["parameters"] == plain["parameters"] - block
    assert found["memory_bytes"] == plain["memory_bytes"] - 4 * block
    assert found["form"] == "dense" and found["kernel"].startswith("aten::")
    apart = sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True))
    assert found["distance"] == pytest.approx((apart / size(parent)) ** 0.5, rel=1e-4)
