"""Shrinking on other architectures, in chains, on real shapes and on a model that has learnt something."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.measures import perplexity
from tests.shapes import IDS, QUICK, logits, tiny, weights
from weighin.adapters._hf import load
from weighin.adapters.lora import lora
from weighin.adapters.shrink import shrink
from weighin.harness import Checkpoint
from weighin.harness.reference import reference_path
from weighin.results.errors import WeighinError

MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2, "use_sliding_window": True},
    "qwen3": {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"] * 2, "use_sliding_window": True},
    "mistral": {},
    "smollm3": {"no_rope_layers": [1, 0, 1, 1]},
    "gemma2": {"head_dim": 16},
    "nemotron": {"hidden_act": "silu"},  # its own, relu squared, leaves living neurons silent on so little text
}


@pytest.mark.parametrize("kind", MODELS)
def test_other_architectures_shrink_and_keep_each_block_s_kind(
    pico_dir: Path, tmp_path: Path, text_file: Path, kind: str
) -> None:
    """Dead neurons, a dead head group and a dead block: what is left answers as before, reloaded by transformers."""
    parent, out = tmp_path / "parent", tmp_path / "out"
    model = tiny(parent, pico_dir, kind, **MODELS[kind])
    with torch.no_grad():
        for i, block in enumerate(model.model.layers):
            block.mlp.down_proj.weight[:, 5:53] = 0
            block.self_attn.o_proj.weight[:, : block.self_attn.o_proj.in_features // 2] = 0
            if i == 1:
                for part in (*block.mlp.down_proj.parameters(), *block.self_attn.o_proj.parameters()):
                    part.zero_()
    model.save_pretrained(parent)
    out.mkdir()
    shrink(Checkpoint(parent, "key"), out, data=str(text_file), ffn=0.5, heads=0.5, layers=1, **QUICK)
    again = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        assert torch.allclose(again(IDS).logits, model.eval()(IDS).logits, atol=1e-4)
        assert again.generate(IDS, max_new_tokens=4, do_sample=False).shape == (1, 24)
    for name in ("layer_types", "no_rope_layers"):
        if kinds := getattr(model.config, name, None):
            assert getattr(again.config, name) == [kinds[i] for i in (0, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "sizes", "params", "message"),
    [
        ("gpt2", {}, {}, "shrink.ffn: GPT2Block has 0 modules with up_proj"),
        ("gpt2", {}, {"ffn": 0, "heads": 0.5}, "shrink.heads: GPT2Block has 0"),
        ("phi3", {}, {}, "shrink.ffn: Phi3DecoderLayer has 0 modules"),
        ("olmo2", {}, {"ffn": 0, "heads": 0.5}, "Olmo2ForCausalLM does not fit its own smaller config .*k_norm"),
    ],
)
def test_what_it_cannot_cut_is_refused(
    pico_dir: Path, tmp_path: Path, text_file: Path, kind: str, sizes: Any, params: dict[str, Any], message: str
) -> None:
    tiny(tmp_path / "parent", pico_dir, kind, **sizes)
    (tmp_path / "out").mkdir()
    with pytest.raises(WeighinError, match=message):
        shrink(Checkpoint(tmp_path / "parent", "key"), tmp_path / "out", data=str(text_file), **params, **QUICK)


def test_blocks_go_where_sizes_have_other_names(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    tiny(tmp_path / "parent", pico_dir, "gpt2", n_embd=64)
    (tmp_path / "out").mkdir()
    shrink(Checkpoint(tmp_path / "parent", "key"), tmp_path / "out", data=str(text_file), ffn=0, layers=3, **QUICK)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["n_layer"] == 1
    assert logits(tmp_path / "out").isfinite().all()


def test_a_kept_adapter_is_merged_first(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    for merge in (True, False):
        for name in (str(merge), f"{merge}-small"):
            (tmp_path / name).mkdir()
        lora(Checkpoint(pico_dir, "key"), tmp_path / str(merge), data=str(text_file), max_length=32, merge=merge)
        shrink(Checkpoint(tmp_path / str(merge), "key"), tmp_path / f"{merge}-small", method="magnitude")
    merged, kept = weights(tmp_path / "True-small"), weights(tmp_path / "False-small")
    assert merged.keys() == kept.keys()
    assert all(torch.allclose(merged[name], kept[name], atol=1e-5) for name in merged)
    names = {p.name for p in pico_dir.iterdir()}
    assert names == {p.name for p in (tmp_path / "True-small").iterdir()}
    assert names == {p.name for p in (tmp_path / "False-small").iterdir()}


def test_16_bits_on_disk_stay_16_bits(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    half, out = tmp_path / "half", tmp_path / "out"
    tiny(half, pico_dir)
    load(half).to(torch.bfloat16).save_pretrained(half)
    out.mkdir()
    shrink(Checkpoint(half, "key"), out, data=str(text_file), heads=0.5, **QUICK)
    assert {w.dtype for w in weights(out).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


def test_same_seed_same_bytes(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.rand(3)  # whatever was drawn before must not matter
        shrink(Checkpoint(pico_dir, "key"), tmp_path / name, data=str(text_file), layers=1, heads=0.5, **QUICK)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_real_model_of_odd_sizes_shrinks(shared_data: Path, tmp_path: Path, text_file: Path) -> None:
    """172 neurons, 8 heads of 8 in 4 groups, 5 blocks."""
    source = shared_data / "models" / "stories260K"
    for method in ("activation", "magnitude"):
        (tmp_path / method).mkdir()
        cut: dict[str, Any] = {"ffn": 0.25, "heads": 0.5, "layers": 1, "method": method}
        shrink(Checkpoint(source, "key"), tmp_path / method, data=str(text_file), **cut, **QUICK)
        config = json.loads((tmp_path / method / "config.json").read_text())
        assert [config[n] for n in ("intermediate_size", "num_attention_heads", "num_key_value_heads")] == [128, 4, 2]
        assert logits(tmp_path / method).isfinite().all()


@pytest.mark.slow
def test_activations_find_the_neurons_that_a_trained_model_can_spare(tmp_path: Path) -> None:
    """On `reference:base` at half the neurons: activation 2.08, magnitude 7.3, random far behind (base 1.86)."""
    source = reference_path("base")
    for method in ("activation", "magnitude"):
        (tmp_path / method).mkdir()
        shrink(Checkpoint(source, "key"), tmp_path / method, ffn=0.5, method=method)
    random = tmp_path / "random"
    (tmp_path / "random").mkdir()
    model = load(source, dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight[:, torch.randperm(512)[:256]] = 0
    model.save_pretrained(random)
    for file in source.glob("tokenizer*"):
        (random / file.name).write_bytes(file.read_bytes())
    found = {name: perplexity(tmp_path / name) for name in ("activation", "magnitude", "random")}
    assert perplexity(source) < found["activation"] < 0.5 * min(found["magnitude"], found["random"]), found


@pytest.mark.slow
def test_the_loss_without_a_block_tells_which_one_a_trained_model_can_spare(tmp_path: Path) -> None:
    """Influence only finds that the first block of `reference:base` is needed: it gives up the second (4.86).

    Perplexity without the first 2390, the second 4.86, the third 3.83, the fourth 2.36 (all four 1.86).
    """
    source = reference_path("base")
    found = {}
    for block in range(4):
        model = load(source, dtype=torch.float32)
        with torch.no_grad():
            for layer in (model.model.layers[block].mlp.down_proj, model.model.layers[block].self_attn.o_proj):
                layer.weight.zero_()
        model.save_pretrained(tmp_path / str(block))
        for file in source.glob("tokenizer*"):
            (tmp_path / str(block) / file.name).write_bytes(file.read_bytes())
        found[block] = perplexity(tmp_path / str(block))
    for depth in ("influence", "loss"):
        (tmp_path / depth).mkdir()
        shrink(Checkpoint(source, "key"), tmp_path / depth, ffn=0, layers=1, depth=depth)
    chosen = {depth: perplexity(tmp_path / depth) for depth in ("influence", "loss")}
    assert chosen["loss"] == pytest.approx(min(found.values()), rel=0.02), (found, chosen)
    assert chosen["influence"] < 0.1 * max(found.values()), (found, chosen)
