"""Shrinking: what is planted dead is what goes, the rest answers as before, and the file is smaller by what went."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shapes import QUICK, logits, tiny, weights
from weighin.adapters._calibrate import Calibration
from weighin.adapters._hf import copy_companions, load, load_tokenizer
from weighin.adapters._importance import block_influence, choose, group_scores, losses_without, neuron_scores
from weighin.adapters._shrink import Cut, per_layer, smaller
from weighin.adapters.shrink import shrink
from weighin.harness import Checkpoint, Outline
from weighin.harness.text import documents
from weighin.results.errors import WeighinError

DEAD_BLOCK, DEAD_GROUPS, DEAD_NEURONS = 2, 2, 24


@pytest.fixture(scope="module")
def live(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks with biases, nothing dead in them."""
    out = tmp_path_factory.mktemp("live")
    tiny(out, pico_dir)
    return out


@pytest.fixture(scope="module")
def planted(live: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[list[int]]]]:
    """The same with dead neurons, head groups and a block: nothing reads them. And what lives in each block."""
    out = tmp_path_factory.mktemp("planted")
    model = load(live)
    draw = torch.Generator().manual_seed(4)
    alive: dict[str, list[list[int]]] = {"ffn": [], "heads": []}
    with torch.no_grad():
        for i, block in enumerate(model.model.layers):
            neurons = torch.randperm(96, generator=draw)[:DEAD_NEURONS].tolist()
            groups = torch.randperm(4, generator=draw)[:DEAD_GROUPS].tolist()
            block.mlp.down_proj.weight[:, neurons] = 0
            for group in groups:  # two query heads of 8 numbers each
                block.self_attn.o_proj.weight[:, group * 16 : group * 16 + 16] = 0
            if i == DEAD_BLOCK:
                for layer in (block.mlp.down_proj, block.self_attn.o_proj):
                    layer.weight.zero_()
                    layer.bias.zero_()
            alive["ffn"].append([n for n in range(96) if n not in neurons])
            alive["heads"].append([g for g in range(4) if g not in groups])
    model.save_pretrained(out)
    copy_companions(live, out)
    return out, alive


CUTS: dict[str, dict[str, Any]] = {
    "ffn": {"ffn": DEAD_NEURONS / 96},
    "heads": {"ffn": 0, "heads": 0.5},
    "layers": {"ffn": 0, "layers": 1},
    "all": {"ffn": DEAD_NEURONS / 96, "heads": 0.5, "layers": 1},
}


@pytest.fixture(scope="module")
def made(
    planted: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory, text_file: Path
) -> dict[tuple[str, str], Path]:
    """The planted model after each cut, by each method."""
    found = {}
    for cut, params in CUTS.items():
        for method in ("activation", "magnitude"):
            found[cut, method] = tmp_path_factory.mktemp(f"{cut}-{method}")
            parent = Checkpoint(planted[0], "key")
            shrink(parent, found[cut, method], data=str(text_file), method=method, **params, **QUICK)
    return found


def size(config: Mapping[str, Any]) -> int:
    """Weights of a Llama with biases and an untied head, counted by hand."""
    hidden, ffn, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = (hidden + 1) * (queries + 2 * keys) + (queries + 1) * hidden
    feed_forward = 2 * (hidden + 1) * ffn + (ffn + 1) * hidden
    return (
        2 * config["vocab_size"] * hidden
        + hidden
        + config["num_hidden_layers"] * (attention + feed_forward + 2 * hidden)
    )


RELOAD = """
import sys, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
for path in sys.argv[1:]:
    with torch.no_grad():
        torch.save(AutoModelForCausalLM.from_pretrained(path)(torch.arange(5, 25)[None]).logits, path + "/answer.pt")
"""


def test_the_dead_go_and_the_answers_stay(
    made: dict[tuple[str, str], Path], planted: tuple[Path, Any], tmp_path: Path
) -> None:
    """Reloaded by plain transformers, in a fresh process."""
    copies = {key: tmp_path / "-".join(key) for key in made}
    for key, path in made.items():
        shutil.copytree(path, copies[key])
    subprocess.run([sys.executable, "-c", RELOAD, *map(str, copies.values())], capture_output=True, check=True)
    expected = logits(planted[0])
    for key, path in copies.items():
        assert torch.allclose(torch.load(path / "answer.pt"), expected, atol=1e-4), key
    assert expected.std() > 0.5, "answers that would show a difference"


@pytest.mark.parametrize("method", ["activation", "magnitude"])
def test_exactly_the_planted_ones_go(made: dict[tuple[str, str], Path], planted: tuple[Path, Any], method: str) -> None:
    before, alive = weights(planted[0]), planted[1]
    after = {cut: weights(made[cut, method]) for cut in CUTS}
    for i in range(4):
        block = f"model.layers.{i}"
        if i != DEAD_BLOCK:
            for name, weight in after["ffn"].items():
                if name.startswith(f"{block}.mlp.up") or name.startswith(f"{block}.mlp.gate"):
                    assert torch.equal(weight, before[name][alive["ffn"][i]]), name
            down = f"{block}.mlp.down_proj.weight"
            assert torch.equal(after["ffn"][down], before[down][:, alive["ffn"][i]])
            queries = [g * 16 + k for g in alive["heads"][i] for k in range(16)]
            keys = [g * 8 + k for g in alive["heads"][i] for k in range(8)]
            for name, places in {"q_proj": queries, "k_proj": keys, "v_proj": keys}.items():
                for kind in ("weight", "bias"):
                    full = f"{block}.self_attn.{name}.{kind}"
                    assert torch.equal(after["heads"][full], before[full][places]), full
            out = f"{block}.self_attn.o_proj.weight"
            assert torch.equal(after["heads"][out], before[out][:, queries])
            new = f"model.layers.{i - (i > DEAD_BLOCK)}"
            for name, weight in before.items():
                if name.startswith(block + "."):
                    assert torch.equal(after["layers"][name.replace(block, new)], weight)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert all(torch.equal(found[name], before[name]) for found in after.values())


@pytest.mark.parametrize("cut", CUTS)
def test_the_file_is_smaller_by_what_was_cut(
    made: dict[tuple[str, str], Path], planted: tuple[Path, Any], cut: str
) -> None:
    path = made[cut, "activation"]
    config = json.loads((path / "config.json").read_text())
    expected = {
        "intermediate_size": 72 if CUTS[cut]["ffn"] else 96,
        "num_key_value_heads": 2 if "heads" in CUTS[cut] else 4,
        "num_attention_heads": 4 if "heads" in CUTS[cut] else 8,
        "num_hidden_layers": 3 if "layers" in CUTS[cut] else 4,
        "head_dim": 8,
    }
    assert expected.items() <= config.items()
    tensors = weights(path)
    assert sum(w.numel() for w in tensors.values()) == size(config) == sum(w.nbytes for w in tensors.values()) // 4
    before, after = ((p / "model.safetensors").read_bytes() for p in (planted[0], path))
    saved = size(json.loads((planted[0] / "config.json").read_text())) - size(config)
    headers = [8 + int.from_bytes(file[:8], "little") for file in (before, after)]
    assert len(before) - headers[0] - (len(after) - headers[1]) == 4 * saved > 20_000


def test_plan_sees_the_sizes_that_come_out(made: dict[tuple[str, str], Path], planted: tuple[Path, Any]) -> None:
    assert shrink.foresee is not None
    config = json.loads((planted[0] / "config.json").read_text())
    for cut, params in CUTS.items():
        foreseen = shrink.foresee(Outline(config), shrink.parameters(**params).model_dump()).config
        assert foreseen == {**json.loads((made[cut, "activation"] / "config.json").read_text())}


def test_blocks_go_by_the_influence_computed_by_hand(live: Path, text_file: Path) -> None:
    model = load(live)
    rows = [load_tokenizer(live)(line)["input_ids"][:32] for line in documents(str(text_file), samples=12, seed=0)]
    model.model.norm = torch.nn.Identity()  # else the last of the hidden states is a normed one
    total, tokens = torch.zeros(4), 0
    with torch.no_grad():
        for row in rows:
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
            for i in range(4):
                x, y = states[i][0], states[i + 1][0]
                total[i] += (1 - (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))).sum()
            tokens += len(row)
    order = (total / tokens).argsort().tolist()
    assert (total / tokens).sort().values.diff().min() > 1e-4, "no two alike"
    for count in (1, 2, 3):
        kept = choose(load(live), Cut(0, 0, count), live, Calibration(str(text_file), 12, 32, 0))
        assert kept.blocks == sorted(order[count:])


def test_blocks_go_by_the_loss_without_them(live: Path, text_file: Path) -> None:
    text = Calibration(str(text_file), 12, 32, 0)
    found = losses_without(load(live), live, text)
    rows = [load_tokenizer(live)(line)["input_ids"][:32] for line in documents(str(text_file), samples=12, seed=0)]
    for i, loss in enumerate(found):
        model = load(live)
        del model.model.layers[i]
        model.config.num_hidden_layers = 3
        with torch.no_grad():
            each = [
                (model(torch.tensor([r]), labels=torch.tensor([r]), use_cache=False).loss, len(r) - 1) for r in rows
            ]
        assert loss == pytest.approx(sum(float(a) * n for a, n in each) / sum(n for _, n in each), rel=1e-4)
    order = torch.tensor(found).argsort().tolist()
    assert choose(load(live), Cut(0, 0, 2, depth="loss"), live, text).blocks == sorted(order[2:])


def test_scores_by_hand() -> None:
    assert block_influence(torch.tensor([[1.0, 0], [3, 4]]), torch.tensor([[0, 2.0], [6, 8]])).tolist() == [1.0, 0.0]
    ffn = torch.nn.Module()
    ffn.up_proj, ffn.gate_proj, ffn.down_proj = (torch.nn.Linear(2, 2, bias=False) for _ in range(3))
    ffn.up_proj.weight.data = torch.tensor([[3.0, 4], [0, 1]])
    ffn.gate_proj.weight.data = torch.tensor([[2.0, 0], [0, 3]])
    ffn.down_proj.weight.data = torch.tensor([[0.0, 5], [1, 12]])
    assert neuron_scores(ffn, None).tolist() == [1 * 5 * 2, 13 * 1 * 3]
    assert neuron_scores(ffn, torch.tensor([7.0, 2.0])).tolist() == [7, 26]
    attention = torch.nn.Module()
    attention.v_proj, attention.o_proj = (torch.nn.Linear(2, 2, bias=False) for _ in range(2))
    attention.v_proj.weight.data = torch.tensor([[3.0, 4], [0, 1]])
    attention.o_proj.weight.data = torch.tensor([[0.0, 5], [1, 12]])
    assert group_scores(attention, 2, None).tolist() == [5, 13]
    assert group_scores(attention, 1, torch.tensor([7.0, 2.0])).tolist() == [7 * 1 + 2 * 13]


@pytest.mark.parametrize(
    ("config", "cut", "expected"),
    [
        (
            {"model_type": "llama", "num_attention_heads": 16, "num_key_value_heads": 4, "hidden_size": 64},
            Cut(0, 0.3, 0, 8),  # 12 heads do not divide 64, which llama's config.json must
            {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4},
        ),
        ({"intermediate_size": 172}, Cut(0.25, 0, 0, 8), {"intermediate_size": 128}),
        ({"intermediate_size": 172}, Cut(0.25, 0, 0, 1), {"intermediate_size": 129}),
        ({"intermediate_size": 1536}, Cut(0.3, 0, 0, 128), {"intermediate_size": 1024}),
        (
            {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576},
            Cut(0, 0.3, 0, 8),
            {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64},
        ),
        ({"num_attention_heads": 4}, Cut(0, 0.5, 0, 8), {"num_attention_heads": 2, "num_key_value_heads": 2}),
        (
            {"num_hidden_layers": 3, "layer_types": ["a", "b", "a"], "eos_token_id": [1, 2, 3]},
            Cut(0, 0, 1, 8),
            {"num_hidden_layers": 2, "layer_types": ["a", "b"]},
        ),
        ({}, Cut(0.5, 0.5, 9, 8), {}),
    ],
)
def test_sizes_are_rounded_as_said(config: dict[str, Any], cut: Cut, expected: dict[str, Any]) -> None:
    assert smaller(config, cut) == expected


def test_lists_with_an_entry_for_each_block_follow_the_blocks() -> None:
    config = {
        "num_hidden_layers": 4,
        "layer_types": ["a", "b", "c", "d"],
        "no_rope_layers": [1, 0],
        "ids": [1, 2, 3, 4],
    }
    assert per_layer(config, [0, 3]) == {"layer_types": ["a", "d"]}


LLAMA = {"intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ffn": 0}, "nothing to drop"),
        ({"ffn": 0.01}, r"shrink.ffn: 0.01 of 96.*nothing would be dropped. Allowed for this model: 0.08333 to 0.9167"),
        ({"ffn": 0.99}, "shrink.ffn: .*all would be dropped"),
        ({"ffn": 0.5, "multiple": 96}, "in multiples of 96: nothing would be dropped. Allowed for this model: none"),
        ({"heads": 0.1}, r"shrink.heads: 0.1 of 4.*nothing would be dropped. Allowed for this model: 0.25, 0.5, 0.75$"),
        ({"heads": 0.9}, "shrink.heads: .*all would be dropped"),
        ({"layers": 4}, "shrink.layers: 4 of 4 blocks leave none. Allowed for this model: at most 3"),
    ],
)
def test_a_cut_that_cannot_be_is_refused_at_plan(params: dict[str, Any], message: str) -> None:
    assert shrink.foresee is not None
    with pytest.raises(WeighinError, match=message):
        shrink.foresee(Outline(LLAMA), shrink.parameters(**params).model_dump())


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (Outline(LLAMA, packed="gptq"), "already quantised .gptq.*Put shrink before"),
        (Outline(LLAMA, structure="factors"), "modules are not those of its architecture .factors"),
        (Outline(LLAMA, served="decode"), "only changes how a model is served"),
        (Outline({**LLAMA, "intermediate_size": [96, 48]}), "unlike sizes"),
    ],
)
def test_a_parent_that_cannot_be_cut_is_refused_at_plan(parent: Outline, message: str) -> None:
    assert shrink.foresee is not None
    with pytest.raises(WeighinError, match=message):
        shrink.foresee(parent, shrink.parameters().model_dump())


def test_a_model_that_is_not_known_yet_is_not_refused() -> None:
    assert shrink.foresee is not None
    assert shrink.foresee(Outline(), shrink.parameters(heads=0.5, layers=2).model_dump()) == Outline()
