"""The quantising stages: the grid is the one they name, and what they are for shows on models that need it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    MixtralConfig,
    Olmo2Config,
)

from tests.conftest import TEXT
from tests.shapes import plant_outliers
from weighin.adapters._hf import copy_companions, linears, load_float32
from weighin.adapters._quantize import Grid, save_packed
from weighin.adapters._train import Schedule, train
from weighin.adapters.awq import awq
from weighin.adapters.factorize import factorize
from weighin.adapters.gptq import gptq
from weighin.adapters.prune import prune
from weighin.adapters.qat import qat, rounded
from weighin.adapters.rtn import rtn
from weighin.adapters.smoothquant import smoothquant
from weighin.harness import Checkpoint, Outline, WeighinError
from weighin.harness.structure import pretrained

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
QUICK: dict[str, Any] = {"samples": 8, "max_length": 32}
BRIEF: dict[str, Any] = {"trials": 4, **QUICK}
W8A8: dict[str, Any] = {"bits": 8, "group_size": -1, "activations": 8}


ALONE: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq of 2 bits": (gptq, {"bits": 2, **QUICK}),
    "rtn": (rtn, {}),
    "rtn of 2 bits with zero points": (rtn, {"bits": 2, "group_size": 32, "symmetric": False}),
    "rtn of 3 bits by whole rows": (rtn, {"bits": 3, "group_size": -1}),
    "rtn of 4 bits and 8 bits of activations": (rtn, {"activations": 8}),
    "rtn of 8 bits and 8 bits of activations": (rtn, W8A8),
    "awq": (awq, BRIEF),
    "awq of 2 bits by whole rows": (awq, {"bits": 2, "group_size": -1, "symmetric": True, **BRIEF}),
    "smoothquant": (smoothquant, QUICK),
    "smoothquant and gptq": (smoothquant, {"weights": "gptq", **QUICK}),
    "qat": (qat, {"group_size": 64, **QUICK}),
    "qat on its own text": (qat, {"bits": 3, "group_size": -1, "data": None, "steps": 2, **QUICK}),
}


@pytest.fixture(scope="module")
def built(make: Make, pico_dir: Path) -> dict[str, Path]:
    return {name: make(stage, pico_dir, **params) for name, (stage, params) in ALONE.items()}


def reloaded(path: Path) -> Any:
    """The model as plain transformers loads it, unpacked by a forward."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model(torch.arange(8)[None])
    return model


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach() for name, layer in linears(reloaded(path)).items()}


@torch.no_grad()
def logits(model: Any, folder: Path) -> torch.Tensor:
    """What a model answers to the text that the tests calibrate on, (1, token, vocabulary)."""
    ids = AutoTokenizer.from_pretrained(folder)(" ".join(TEXT), return_tensors="pt").input_ids
    return model(ids).logits  # type: ignore[no-any-return]


def error(path: Path, parent: Path) -> float:
    """How far the logits are from the parent's, as a share of their length."""
    right = logits(reloaded(parent), parent)
    return ((logits(reloaded(path), parent) - right).norm() / right.norm()).item()


def on_grid(weight: torch.Tensor, bits: int, group: int, symmetric: bool) -> torch.Tensor:
    """`weight` (out, in) rounded group by group, by the textbook (arXiv 1712.05877, section 2)."""
    groups = weight.unflatten(1, (-1, group if group > 0 else weight.shape[1]))
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / ((2**bits - 1) / 2)
        return ((groups / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale).flatten(1)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    return (((groups / scale).add(zero).round().clamp(0, 2**bits - 1) - zero) * scale).flatten(1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("group_size", "symmetric"), [(64, True), (-1, True), (64, False), (-1, False)])
def test_rtn_is_the_textbooks_grid(make: Make, pico_dir: Path, bits: int, group_size: int, symmetric: bool) -> None:
    before = weights(pico_dir)
    after = weights(make(rtn, pico_dir, bits=bits, group_size=group_size, symmetric=symmetric))
    for name, weight in after.items():
        expected = on_grid(before[name], bits, group_size, symmetric)
        # A weight halfway between two values of the grid may go either way.
        assert (weight - expected).abs().gt(1e-6).float().mean() < 1e-3, name
        assert len(weight[0, :64].unique()) <= 2**bits


def test_every_kind_reloads_plainly_and_is_near_its_parent(built: dict[str, Path], pico_dir: Path) -> None:
    for name, path in built.items():
        assert {p.name for p in path.iterdir()} == {p.name for p in pico_dir.iterdir()}, name
        assert 0 < error(path, pico_dir) < 1.2, name  # of 2 bits hardly more than the signs are left; apart is 1.41
        assert json.loads((path / "config.json").read_text())["quantization_config"]["quant_method"]


def test_bits_show_on_disk(make: Make, pico_dir: Path) -> None:
    """Packed, not stored a byte each: the linear layers take bits/32 of what they took, and a little for scales."""
    parent = load_file(pico_dir / "model.safetensors")
    layers = sum(w.nbytes for name, w in parent.items() if "proj" in name)
    for stage, params in [(rtn, {}), (rtn, {"activations": 8}), (qat, {"group_size": 64, **QUICK})]:
        for bits in (2, 4):
            tensors = load_file(make(stage, pico_dir, bits=bits, **params) / "model.safetensors")
            packed = sum(w.nbytes for name, w in tensors.items() if "proj" in name)
            assert packed < layers * (bits / 32 + 0.04), (stage.call.__name__, bits)


def test_activations_of_8_bits_are_rounded_at_run_time(make: Make, pico_dir: Path) -> None:
    quiet, rough = make(rtn, pico_dir, bits=8, group_size=-1), make(rtn, pico_dir, **W8A8)
    assert all(torch.equal(w, weights(rough)[name]) for name, w in weights(quiet).items())
    assert error(rough, pico_dir) > 1.2 * error(quiet, pico_dir)


@pytest.mark.parametrize("name", ["rtn", "awq", "smoothquant and gptq", "qat", "qat on its own text"])
def test_same_seed_same_bytes(make: Make, built: dict[str, Path], pico_dir: Path, name: str) -> None:
    stage, params = ALONE[name]
    torch.rand(3)  # whatever was drawn before must not matter
    again = make(stage, pico_dir, again=1, **params) / "model.safetensors"
    assert again.read_bytes() == (built[name] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["awq", "qat", "qat on its own text"])
def test_another_seed_other_weights(make: Make, built: dict[str, Path], pico_dir: Path, name: str) -> None:
    stage, params = ALONE[name]
    other = make(stage, pico_dir, seed=1, **params) / "model.safetensors"
    assert other.read_bytes() != (built[name] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_of_a_pruned_parent_stay(make: Make, pico_dir: Path, symmetric: bool) -> None:
    pruned = make(prune, pico_dir, method="magnitude", pattern="2:4")
    children = [
        make(rtn, pruned, bits=2, symmetric=symmetric),
        make(awq, pruned, bits=2, symmetric=symmetric, **BRIEF),
        *(make(smoothquant, pruned, weights=how, **QUICK) for how in ("rtn", "gptq")),
        *([make(qat, pruned, bits=8, learning_rate=1e-2, **QUICK)] if symmetric else []),
    ]
    zeros = {name: weight == 0 for name, weight in weights(pruned).items()}
    for child in children:
        for name, weight in weights(child).items():
            assert not weight[zeros[name]].any(), (child.name, name)
            assert (weight.view(-1, 4) == 0).sum(1).ge(2).all()


@pytest.mark.parametrize(
    ("stage", "params"), [(rtn, {}), (awq, BRIEF), (smoothquant, QUICK), (qat, {"group_size": 64, **QUICK})]
)
def test_sixteen_bits_on_disk_stay_sixteen_bits(make: Make, half_dir: Path, stage: Any, params: dict[str, Any]) -> None:
    tensors = load_file(make(stage, half_dir, **params) / "model.safetensors")
    assert not [name for name, w in tensors.items() if w.dtype == torch.float32]
    assert AutoModelForCausalLM.from_pretrained(make(stage, half_dir, **params)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("bits", "group_size"), [(2, 64), (3, -1), (8, 32)])
def test_qat_trains_on_the_weights_that_the_file_holds(
    pico_dir: Path, tmp_path: Path, bits: int, group_size: int, dtype: torch.dtype
) -> None:
    """What the model answered while its rounding was still torchao's is what it answers when reloaded."""
    model, _ = load_float32(pico_dir)
    with rounded(model, Grid(bits, group_size), dtype):
        rows = [{"input_ids": list(range(start, start + 20))} for start in range(16)]
        train(model, rows, Schedule(1e-3, batch_size=4), "qat")
        if dtype == torch.bfloat16:  # what is not rounded to the grid is rounded to the file's dtype
            for weight in (p for name, p in model.named_parameters() if "proj" not in name):
                weight.data = weight.data.to(dtype).float()
        trained = logits(model, pico_dir)
    converted = logits(model, pico_dir)
    save_packed(model, dtype, tmp_path, pico_dir)
    assert torch.equal(trained, converted)
    assert torch.equal(logits(reloaded(tmp_path), pico_dir), converted)


def test_quantised_after_factorising(make: Make, pico_dir: Path) -> None:
    parent = make(factorize, pico_dir, method="svd", ratio=0.75)
    right = logits(pretrained(parent), parent)
    for stage, params in [(rtn, {}), (gptq, QUICK), (qat, {"steps": 1, "learning_rate": 1e-5, **QUICK})]:
        child = logits(pretrained(make(stage, parent, bits=8, group_size=-1, **params)), parent)
        assert 0 < (child - right).norm() / right.norm() < 0.05, stage.call.__name__


TINY: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 2,
}


def untrained(config: Any, out: Path, tokenizer: Path) -> Path:
    """A model of one small layer with random weights."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(out)
    copy_companions(tokenizer, out)
    return out


def test_scales_that_would_not_cancel_out_are_refused(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    """Olmo 2 has no norm in front of its layers; what Gemma 2 calls as Llama calls such a norm stands elsewhere."""
    olmo = untrained(Olmo2Config(**TINY), tmp_path / "olmo", pico_dir)
    for stage, params in [(awq, {"group_size": -1, **BRIEF}), (smoothquant, QUICK)]:
        with pytest.raises(WeighinError, match=f"Olmo2ForCausalLM does not call its layers as {stage.call.__name__}"):
            stage.call(Checkpoint(olmo, "key"), tmp_path, data=str(text_file), **params)
    gemma = untrained(Gemma2Config(**TINY), tmp_path / "gemma", pico_dir)
    with pytest.raises(WeighinError, match="scaling changed what Gemma2ForCausalLM computes"):
        smoothquant.call(Checkpoint(gemma, "key"), tmp_path, data=str(text_file), **QUICK)
    assert {p.name for p in tmp_path.iterdir()} == {"olmo", "gemma"}


@pytest.mark.parametrize("stage", [gptq, rtn, awq, smoothquant, qat])
def test_experts_are_refused_where_config_does_not_tell(
    pico_dir: Path, tmp_path: Path, text_file: Path, stage: Any
) -> None:
    """Packed, they would be reloaded as random numbers, with no more than a line in the log."""
    parent = untrained(MixtralConfig(**TINY, num_local_experts=2), tmp_path / "mixtral", pico_dir)
    given = {"data": str(text_file)} if stage.reads else {}
    with pytest.raises(WeighinError, match="mixture of experts"):
        stage.call(Checkpoint(parent, "key"), tmp_path, **given)


@pytest.mark.parametrize("stage", [gptq, rtn, awq, smoothquant, qat])
def test_foreseen_at_plan(stage: Any) -> None:
    params = stage.parameters().model_dump()
    assert stage.foresee(Outline(), params).packed == "compressed-tensors"
    for parent, reason in [
        (Outline(packed="torchao"), f"already quantised .torchao.*Put {stage.call.__name__} before"),
        (Outline(attached="prompt_tuning"), "soft prompt"),
        (Outline({"num_experts": 8}), "mixture of experts"),
        (Outline(structure="shared"), "share their weights|modules are not those"),
    ]:
        with pytest.raises(WeighinError, match=reason):
            stage.foresee(parent, params)


@pytest.mark.parametrize("stage", [gptq, rtn, awq, qat])
def test_group_sizes_foreseen_at_plan(stage: Any) -> None:
    config = {"hidden_size": 64, "intermediate_size": 172, "num_attention_heads": 8, "head_dim": 8}
    for size in (-1, 2, 4):
        stage.foresee(Outline(config), stage.parameters(group_size=size).model_dump())
    with pytest.raises(WeighinError, match=r"group_size: 128 does not divide .* 64 of .*Allowed .*: -1 .*, 1, 2, 4;"):
        stage.foresee(Outline(config), stage.parameters().model_dump())
    with pytest.raises(WeighinError, match=r"32 does not divide .* 48 of layers .num_attention_heads \* head_dim."):
        stage.foresee(Outline({**config, "intermediate_size": 64, "head_dim": 6}), {"group_size": 32})
    stage.foresee(Outline(config), {"group_size": 128, "misfit": "rows"})
    stage.foresee(Outline(config, structure="factors") if stage is not awq else Outline(), {"group_size": 128})


@pytest.mark.parametrize(("stage", "params"), [(rtn, {}), (gptq, QUICK), (awq, BRIEF), (qat, QUICK)])
def test_layers_that_groups_do_not_fit_share_by_rows(
    make: Make, shared_data: Path, stage: Any, params: dict[str, Any]
) -> None:
    """Of inputs of 64 and of 172 only the first come in groups of 32."""
    parent = shared_data / "models" / "stories260K"
    child = make(stage, parent, bits=8, group_size=32, misfit="rows", **params)
    tensors = load_file(child / "model.safetensors")
    layer = "model.layers.0.mlp."
    assert tensors[layer + "up_proj.weight_scale"].shape == (172, 2)
    assert tensors[layer + "down_proj.weight_scale"].shape == (64, 1)
    assert 0 < error(child, parent) < 0.05


@pytest.mark.parametrize(("stage", "params"), [(rtn, {}), (gptq, QUICK), (awq, BRIEF)])
def test_rounded_and_left_dense(make: Make, pico_dir: Path, stage: Any, params: dict[str, Any]) -> None:
    packed, left = make(stage, pico_dir, **params), make(stage, pico_dir, packed=False, **params)
    assert "quantization_config" not in json.loads((left / "config.json").read_text())
    assert {n: w.shape for n, w in load_file(left / "model.safetensors").items()} == {
        n: w.shape for n, w in load_file(pico_dir / "model.safetensors").items()
    }
    for name, weight in weights(packed).items():
        assert torch.equal(weights(left)[name], weight), name
    assert torch.equal(logits(reloaded(left), pico_dir), logits(reloaded(packed), pico_dir))
    assert stage.foresee(Outline(), stage.parameters(packed=False).model_dump()) == Outline()
    assert error(make(rtn, left, bits=3), left) > 0


def test_activations_of_8_bits_cannot_be_left_dense() -> None:
    with pytest.raises(WeighinError, match=r"packed: .*Allowed: true"):
        rtn.foresee(Outline(), rtn.parameters(packed=False, activations=8).model_dump())  # type: ignore[misc]


def test_smoothquant_bears_outliers_that_plain_w8a8_does_not(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    planted = plant_outliers(pico_dir, tmp_path / "planted")
    assert error(make(smoothquant, planted, **QUICK), pico_dir) < 0.5 * error(make(rtn, planted, **W8A8), pico_dir)


@pytest.mark.parametrize(
    ("stage", "params"), [(awq, {"group_size": -1, **BRIEF}), (gptq, {"group_size": 4, **QUICK}), (smoothquant, QUICK)]
)
def test_layers_of_odd_sizes(make: Make, shared_data: Path, stage: Any, params: dict[str, Any]) -> None:
    parent = shared_data / "models" / "stories260K"
    assert 0 < error(make(stage, parent, **params), parent) < 0.3
