"""Models that config.json alone does not describe: saved, reloaded, served from the cache, quantised, refused."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from weighin.adapters._hf import copy_companions, load, save
from weighin.adapters.int8 import int8
from weighin.adapters.lora import lora
from weighin.adapters.nf4 import nf4
from weighin.harness import Checkpoint, outline, structure
from weighin.harness.outline import STRUCTURE
from weighin.harness.structure import Structure, low_rank
from weighin.results.errors import WeighinError

IDS = torch.arange(5, 25)[None]
FACTORS = {"model.layers.0.mlp.up_proj": 16, "model.layers.2.self_attn.q_proj": 8}
SHARED = (0, 0, 2, 2)
KINDS = {"factors": Structure(FACTORS), "shared": Structure({}, SHARED), "both": Structure(FACTORS, SHARED)}


@pytest.fixture(scope="module")
def four(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four blocks with biases, and the pico model's tokenizer."""
    out = tmp_path_factory.mktemp("four")
    config = AutoConfig.from_pretrained(pico_dir)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "head_dim": 16}
    for name, value in {**sizes, "mlp_bias": True, "attention_bias": True}.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.1)
    model.save_pretrained(out)
    copy_companions(pico_dir, out)
    return out


@pytest.fixture(scope="module")
def made(four: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Each kind of structure: the model in memory, and where it was saved."""
    found = {}
    for name, wanted in KINDS.items():
        out = tmp_path_factory.mktemp(name)
        torch.manual_seed(2)
        model = structure.apply(load(four), wanted)
        save(model, out, four)
        found[name] = (model, out)
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits
    return result


def greedy(model: Any, **options: Any) -> torch.Tensor:
    result: torch.Tensor = model.generate(IDS, max_new_tokens=12, do_sample=False, pad_token_id=2, **options)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_reloaded_it_is_the_same_model(made: dict[str, tuple[Any, Path]], kind: str, tmp_path: Path) -> None:
    model, out = made[kind]
    again = load(out)
    assert isinstance(again, LlamaForCausalLM)
    assert torch.equal(logits(again), logits(model))
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert structure.read(out) == KINDS[kind] == structure.of(again)
    save(again, tmp_path, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in out.iterdir())
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_gives_what_no_cache_gives(made: dict[str, tuple[Any, Path]], kind: str) -> None:
    again = load(made[kind][1])
    assert torch.equal(greedy(again, use_cache=True), greedy(again, use_cache=False))
    cache = again(IDS[:, :10], use_cache=True).past_key_values
    assert cache.get_seq_length(3) == 10, "each block has its own place, also where it shares its weights"
    rest = again(IDS[:, 10:], past_key_values=cache).logits
    assert torch.allclose(rest, logits(again)[:, 10:], atol=1e-4)


def test_a_factorised_layer_is_two_thin_ones(made: dict[str, tuple[Any, Path]], four: Path) -> None:
    before, after = (load_file(path / "model.safetensors") for path in (four, made["factors"][1]))
    gone = {f"{name}.{kind}" for name in FACTORS for kind in ("weight", "bias")}
    assert before.keys() - after.keys() == gone
    assert {name: tuple(after[name].shape) for name in after.keys() - before.keys()} == {
        "model.layers.0.mlp.up_proj.down.weight": (16, 64),
        "model.layers.0.mlp.up_proj.up.weight": (96, 16),
        "model.layers.0.mlp.up_proj.up.bias": (96,),
        "model.layers.2.self_attn.q_proj.down.weight": (8, 64),
        "model.layers.2.self_attn.q_proj.up.weight": (64, 8),
        "model.layers.2.self_attn.q_proj.up.bias": (64,),
    }


def test_a_shared_block_is_written_once_and_keeps_its_place(made: dict[str, tuple[Any, Path]], four: Path) -> None:
    model, out = made["shared"]
    names = load_file(out / "model.safetensors").keys()
    assert names == {n for n in load_file(four / "model.safetensors") if ".1." not in n and ".3." not in n}
    for each in (model, load(out), copy.deepcopy(model)):
        layers = each.model.layers
        assert [layer.self_attn.layer_idx for layer in layers] == [0, 1, 2, 3]
        for one, other in ((0, 1), (2, 3)):
            assert all(a is b for a, b in zip(layers[one].parameters(), layers[other].parameters(), strict=True))
        assert not {id(p) for p in layers[0].parameters()} & {id(p) for p in layers[2].parameters()}


def test_shared_blocks_compute_what_copies_would(made: dict[str, tuple[Any, Path]], four: Path) -> None:
    copies, source = load(four), load(four)
    for i, shared in enumerate(SHARED):
        copies.model.layers[i].load_state_dict(source.model.layers[shared].state_dict())
    assert torch.equal(logits(load(made["shared"][1])), logits(copies))


def test_shared_blocks_learn_together(made: dict[str, tuple[Any, Path]]) -> None:
    model = load(made["shared"][1]).train()
    model(IDS, labels=IDS).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    first, second = (model.model.layers[i].mlp.up_proj.weight for i in (0, 1))
    assert first.grad is second.grad and first.grad is not None and first.grad.abs().max() > 0
    assert len(list(model.parameters())) == len(load_file(made["shared"][1] / "model.safetensors"))


def test_weights_come_in_the_dtype_that_is_asked_for(made: dict[str, tuple[Any, Path]]) -> None:
    half = load(made["both"][1], dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("stage", [int8, nf4])
@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_quantised(made: dict[str, tuple[Any, Path]], kind: str, stage: Any, tmp_path: Path) -> None:
    model, out = made[kind]
    stage(Checkpoint(out, "key"), tmp_path)
    again = load(tmp_path)
    assert structure.of(again) == KINDS[kind]
    change = (logits(again) - logits(model)).abs().max()
    assert 0 < change < 1
    stored = load_file(tmp_path / "model.safetensors")
    assert kind == "factors" or not [name for name in stored if ".layers.1." in name or ".layers.3." in name]


def test_an_adapter_is_kept_beside_a_factorised_base(
    made: dict[str, tuple[Any, Path]], tmp_path: Path, text_file: Path
) -> None:
    model, out = made["factors"]
    parent = Checkpoint(out, "key")
    for merge in (True, False):
        (tmp_path / str(merge)).mkdir()
        lora(parent, tmp_path / str(merge), data=str(text_file), max_length=32, merge=merge)
    kept, merged = (logits(load(tmp_path / str(merge))) for merge in (False, True))
    assert torch.allclose(kept, merged, atol=1e-4) and (kept - logits(model)).abs().max() > 0.01


def test_a_directory_without_structure_is_loaded_by_transformers_alone(four: Path) -> None:
    model = structure.pretrained(four)
    assert type(model) is LlamaForCausalLM and not structure.of(model)
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(four)))
    assert outline.read(four).structure == ""


def test_an_outline_names_what_differs(made: dict[str, tuple[Any, Path]]) -> None:
    found = [outline.read(made[kind][1]).structure for kind in KINDS]
    assert found == ["factors", "shared", "factors, shared"]


def test_a_plain_linear_layer_and_its_factors_agree() -> None:
    torch.manual_seed(0)
    layer = low_rank()(6, 5, 2, bias=True)
    x = torch.randn(3, 6)
    expected = x @ layer.down.weight.T @ layer.up.weight.T + layer.bias
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert (layer.in_features, layer.out_features, layer.rank) == (6, 5, 2)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a place too few": ({"shared": [0, 0, 2]}, "each of the 4 blocks"),
    "a later block": ({"shared": [1, 1, 2, 2]}, "itself or an earlier block"),
    "a block with no weights of its own": ({"shared": [0, 0, 1, 1]}, "has weights of its own"),
    "no such layer": ({"factors": {"model.layers.9.mlp.up_proj": 4}}, "no module model.layers.9.mlp.up_proj"),
    "not a linear layer": ({"factors": {"model.norm": 4}}, "model.norm is a LlamaRMSNorm"),
    "another key": ({"merged": [1]}, "unknown 'merged'. Allowed: 'factors', 'shared'"),
    "no number": ({"shared": ["first"]}, "cannot be read"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_structure_that_does_not_fit_is_refused(four: Path, tmp_path: Path, fault: str) -> None:
    content, message = BAD[fault]
    shutil.copytree(four, tmp_path / "bad")
    (tmp_path / "bad" / STRUCTURE).write_text(json.dumps(content))
    with pytest.raises(WeighinError, match=message):
        load(tmp_path / "bad")


def test_unlike_blocks_cannot_share(four: Path) -> None:
    model = structure.apply(load(four), Structure({"model.layers.1.mlp.up_proj": 4}))
    with pytest.raises(WeighinError, match="block 1 has other weights than block 0"):
        structure.apply(model, Structure({}, SHARED))


def test_a_foreign_architecture_is_refused(made: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    shutil.copytree(made["shared"][1], tmp_path / "foreign")
    config = json.loads((tmp_path / "foreign" / "config.json").read_text())
    (tmp_path / "foreign" / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(WeighinError, match=r"architecture of transformers' own .got NoSuchModel"):
        load(tmp_path / "foreign")


def test_a_library_that_rebuilds_nothing_is_noticed(
    made: dict[str, tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading relies on when transformers calls `tie_weights`; were it not called, blocks would not share."""
    quiet: Callable[[Any], None] = lambda _: None  # noqa: E731
    monkeypatch.setattr(structure, "_share", quiet)
    with pytest.raises(WeighinError, match="did not rebuild block 1, block 3"):
        load(made["shared"][1])


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, weighin.harness.structure; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
