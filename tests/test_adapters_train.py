"""The stages that train all weights on plain text: continued training, and training from scratch."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.conftest import TEXT
from tests.measures import contents, loaded, logits, loss, size
from tests.shapes import tiny
from weighin.adapters._hf import linears
from weighin.adapters._train import Text, packed_rows
from weighin.adapters.continue_ import continue_
from weighin.adapters.lora import lora
from weighin.adapters.nf4 import nf4
from weighin.adapters.pretrain import pretrain
from weighin.adapters.prune import prune
from weighin.harness import Checkpoint, Outline, outline
from weighin.results.errors import WeighinError

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
SMALL: dict[str, Any] = {"hidden": 64, "ffn": 96, "samples": 20, "max_length": 32, "epochs": 20, "learning_rate": 1e-2}


def test_rows_hold_the_whole_text(pico_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n".join([" ".join(TEXT * 6), "A keeper counts."]), encoding="utf-8")
    tokenizer, model = AutoTokenizer.from_pretrained(pico_dir), AutoModelForCausalLM.from_pretrained(pico_dir)
    rows = packed_rows(model, pico_dir, Text(str(path), None, 16, 0))
    stream = [token for row in rows for token in row["input_ids"]]
    whole = [[*tokenizer(text).input_ids, 1] for text in path.read_text().split("\n")]
    assert {len(row["input_ids"]) for row in rows} == {16}
    assert stream in [(a + b)[: len(stream)] for a, b in (whole, whole[::-1])]
    assert 0 <= sum(map(len, whole)) - len(stream) < 16
    assert len(packed_rows(model, pico_dir, Text(str(path), None, 999, 0))[0]["input_ids"]) == 256  # its window


def test_continue_trains_every_weight_and_lowers_the_loss(make: Make, pico_dir: Path) -> None:
    out = make(continue_, pico_dir, max_length=32, epochs=3)
    assert loss(out, TEXT) < loss(pico_dir, TEXT) - 0.3
    before, after = load_file(pico_dir / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys() and not any(torch.equal(before[name], after[name]) for name in before)
    assert (out / "config.json").read_bytes() == (pico_dir / "config.json").read_bytes()  # its cache too is as it was
    short = [make(continue_, pico_dir, max_length=32, steps=2, again=again) for again in (0, 1)]
    assert contents(short[0]) == contents(short[1])


def test_continue_keeps_the_zeros_of_a_pruned_parent(make: Make, pico_dir: Path) -> None:
    pruned = make(prune, pico_dir, method="magnitude", pattern="2:4")
    healed, filled = (make(continue_, pruned, max_length=32, epochs=3, keep_zeros=keep) for keep in (True, False))
    before = {name: layer.weight == 0 for name, layer in linears(loaded(pruned)).items()}
    after = {name: layer.weight == 0 for name, layer in linears(loaded(healed)).items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(layer.weight.eq(0).float().mean() > 0.1 for layer in linears(loaded(filled)).values())
    assert loss(filled, TEXT) < loss(healed, TEXT) < loss(pruned, TEXT) - 0.3


def test_transposed_layers_are_trained_and_keep_their_zeros(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    model = tiny(tmp_path, pico_dir, "gpt2", n_embd=64, n_layer=2, n_head=4, n_positions=64)
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[::2] = 0
    model.save_pretrained(tmp_path)
    out = make(continue_, tmp_path, max_length=32, epochs=10, learning_rate=5e-3)
    assert loss(out, TEXT) < loss(tmp_path, TEXT) - 0.3
    zero = loaded(out).transformer.h[0].mlp.c_fc.weight.eq(0)
    assert zero[::2].all() and not zero[1::2].any()


def test_continue_wants_dense_weights_and_enough_text(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(WeighinError, match="Put continue before the quantising stage"):
        continue_(Checkpoint(make(nf4, pico_dir), "key"), tmp_path)
    path = tmp_path / "short.txt"
    path.write_text("A keeper counts.\n", encoding="utf-8")
    with pytest.raises(WeighinError, match=r"max_length: .* tokens of text do not fill one row of 64"):
        continue_(Checkpoint(pico_dir, "key"), tmp_path, data=str(path), max_length=64)


def test_pretrain_learns_from_nothing(make: Make, pico_dir: Path) -> None:
    out = make(pretrain, pico_dir, **SMALL)
    config = AutoConfig.from_pretrained(out)
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (64, 96, 2)
    assert loss(out, TEXT) < 0.4 * math.log(config.vocab_size)


def test_pretrain_reads_no_weights_of_its_parent(make: Make, pico_dir: Path) -> None:
    short = {"steps": 2, "max_length": 32}
    out = make(pretrain, pico_dir, **short)
    assert contents(make(pretrain, pico_dir, again=1, **short)) == contents(out)
    assert not torch.equal(logits(make(pretrain, pico_dir, seed=1, **short)), logits(out))
    assert size(out) == size(pico_dir)  # sizes left out are the parent's
    for parent in (make(nf4, pico_dir), make(lora, pico_dir, epochs=2, merge=False)):
        assert contents(make(pretrain, parent, **short)) == contents(out)


@pytest.mark.parametrize(("kv_heads", "rows"), [(4, 128), (2, 64), (1, 32)])
def test_pretrain_groups_queries(make: Make, pico_dir: Path, kv_heads: int, rows: int) -> None:
    out = make(pretrain, pico_dir, kv_heads=kv_heads, steps=2, max_length=32)
    weights = load_file(out / "model.safetensors")
    assert weights["model.layers.0.self_attn.k_proj.weight"].shape == (rows, 128)
    assert weights["model.layers.0.self_attn.q_proj.weight"].shape == (128, 128)


def test_pretrain_ties_and_shares_weights(make: Make, pico_dir: Path) -> None:
    short = {"layers": 4, "steps": 2, "max_length": 32}
    alone = make(pretrain, pico_dir, **short)
    shared, untied = make(pretrain, pico_dir, share=2, **short), make(pretrain, pico_dir, tie=False, **short)
    weights = load_file(alone / "model.safetensors")
    block = sum(w.nbytes for name, w in weights.items() if name.startswith("model.layers.1."))
    assert size(alone) - size(shared) == 2 * block
    assert size(untied) - size(alone) == weights["model.embed_tokens.weight"].nbytes
    assert json.loads((shared / "structure.json").read_text()) == {"shared": [0, 0, 2, 2]}
    model = loaded(shared)
    first, second, third = (model.model.layers[i].self_attn.q_proj.weight for i in range(3))
    assert first is second and not torch.equal(first, third)
    assert model(torch.arange(9)[None]).logits.isfinite().all()


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"hidden": 64, "heads": 2},
        {"heads": 8, "kv_heads": 8},
        {"layers": 4, "share": 2, "ffn": 96, "tie": False},
    ],
)
def test_pretrain_foresees_its_config(make: Make, pico_dir: Path, sizes: dict[str, Any]) -> None:
    assert pretrain.foresee is not None
    given = pretrain.parameters(**sizes).model_dump()
    seen = pretrain.foresee(outline.read(pico_dir), given)
    made = outline.read(make(pretrain, pico_dir, **sizes, steps=2, max_length=32))
    assert {**made.config, **seen.config} == made.config
    assert seen.but(config={}) == made.but(config={})


@pytest.mark.parametrize(
    ("config", "sizes", "message"),
    [
        ({"num_attention_heads": 8}, {"kv_heads": 3}, "kv_heads: 3 do not divide 8 heads evenly. Allowed: 1, 2, 4, 8"),
        ({"num_attention_heads": 4, "num_key_value_heads": 2}, {"heads": 3}, "kv_heads: 2 do not divide 3 heads"),
        ({"num_attention_heads": 4}, {"hidden": 90}, "heads: 4 do not divide a hidden size of 90 .*Allowed: 1, 3, 5, "),
        ({"hidden_size": 12}, {"heads": 4}, "heads: 4 .* heads of an even size. Allowed: 1, 2, 3, 6"),
        ({"num_hidden_layers": 6}, {"share": 4}, "share: 4 does not divide 6 layers. Allowed: 1, 2, 3, 6"),
        ({}, {"layers": 5, "share": 2}, "share: 2 does not divide 5 layers. Allowed: 1, 5"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused_at_plan(
    config: dict[str, int], sizes: dict[str, int], message: str
) -> None:
    assert pretrain.foresee is not None
    with pytest.raises(WeighinError, match=message):
        pretrain.foresee(Outline(config), pretrain.parameters(**sizes).model_dump())


def test_what_is_not_known_is_not_refused() -> None:
    assert pretrain.foresee is not None
    given = pretrain.parameters(heads=6, hidden=60, share=2).model_dump()
    assert pretrain.foresee(Outline(), given).structure == "shared"
    kinds = {"layer_types": ["a", "b"], "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    seen = pretrain.foresee(Outline(kinds), pretrain.parameters(layers=3, heads=6).model_dump())
    assert seen.config["layer_types"] == ["a", "b", "a"]
    assert seen.config["num_key_value_heads"] == 6  # as many as heads before, so as many as heads now
