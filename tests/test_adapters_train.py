"""The stages that train on plain text: adapters on dense and on packed parents, continued training, from scratch."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

from tests.conftest import TEXT
from weighin.adapters._hf import is_adapter, linears
from weighin.adapters._train import Text, packed_rows
from weighin.adapters.continue_ import continue_
from weighin.adapters.gptq import gptq
from weighin.adapters.int8 import int8
from weighin.adapters.lora import RATES, lora
from weighin.adapters.nf4 import nf4
from weighin.adapters.pretrain import pretrain
from weighin.adapters.prune import prune
from weighin.adapters.rtn import rtn
from weighin.harness import Checkpoint, Outline, outline, structure
from weighin.harness.reference import reference_path
from weighin.results.errors import WeighinError

Make = Callable[..., Path]
METHODS = list(RATES)
QUICK: dict[str, Any] = {"samples": 12, "max_length": 32}
PACKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq": (gptq, {"bits": 3, "group_size": 32, **QUICK}),
    "nf4": (nf4, {}),
    "int8": (int8, {}),
}
ON_PACKED = [("lora", "gptq"), ("lora", "nf4"), ("lora", "int8"), ("dora", "gptq"), ("ia3", "nf4"), ("prompt", "int8")]
SMALL: dict[str, Any] = {"hidden": 64, "ffn": 96, "samples": 20, "max_length": 32, "epochs": 20, "learning_rate": 1e-2}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small gain nothing from two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Make:
    """Run a stage; the same one on the same parent with the same parameters only once."""
    made: dict[str, Path] = {}

    def run(stage: Any, parent: Path, again: int = 0, **params: Any) -> Path:
        params = {**({"data": str(text_file)} if stage.reads else {}), **params}
        name = f"{stage.call.__name__} {parent} {again} {sorted(params.items())}"
        if name not in made:
            out = tmp_path_factory.mktemp(stage.call.__name__)
            stage(Checkpoint(parent, "key"), out, **params)
            made[name] = out
        return made[name]

    return run


def loaded(path: Path) -> Any:
    """A model as it is served, in float32; an adapter through peft, on its base."""
    if not is_adapter(path):
        packed = outline.read(path).packed == "compressed-tensors"
        unpacked = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if packed else {}
        return structure.pretrained(path, dtype=torch.float32, **unpacked).eval()
    from peft import PeftModel

    base = Path(json.loads((path / "adapter_config.json").read_text())["base_model_name_or_path"])
    return PeftModel.from_pretrained(loaded(base), path).eval()


def loss(path: Path, texts: list[str]) -> float:
    """Mean loss a token, nats, of a checkpoint on texts."""
    model, tokenizer = loaded(path), AutoTokenizer.from_pretrained(path)
    total = count = 0.0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def logits(path: Path) -> torch.Tensor:
    """What a checkpoint answers to some tokens, (1, position, token)."""
    with torch.no_grad():
        answer: torch.Tensor = loaded(path)(torch.arange(3, 60)[None]).logits
    return answer


def size(path: Path) -> int:
    """Bytes of the tensors in the weight files."""
    return sum(w.nbytes for file in path.glob("*.safetensors") for w in load_file(file).values())


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


# -- lora ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_each_method_lowers_the_loss(make: Make, pico_dir: Path, method: str) -> None:
    assert loss(make(lora, pico_dir, method=method, epochs=2), TEXT) < loss(pico_dir, TEXT) - 0.1


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_merged_and_kept_answer_alike(make: Make, pico_dir: Path, method: str) -> None:
    merged = make(lora, pico_dir, method=method, epochs=2)  # into dense weights, if not told otherwise
    kept = make(lora, pico_dir, method=method, epochs=2, merge=False)
    assert is_adapter(kept) and not is_adapter(merged)
    assert torch.allclose(logits(merged), logits(kept), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_adapter_other_seed_another(make: Make, pico_dir: Path, method: str) -> None:
    params = {"method": method, "samples": 16, "merge": False}
    first = contents(make(lora, pico_dir, **params))
    torch.rand(3)  # whatever was drawn before must not matter
    assert contents(make(lora, pico_dir, again=1, **params)) == first
    other = contents(make(lora, pico_dir, seed=1, **params))
    assert other["adapter_model.safetensors"] != first["adapter_model.safetensors"]


@pytest.mark.parametrize(("method", "kind"), ON_PACKED)
def test_an_adapter_is_trained_on_a_packed_parent(make: Make, pico_dir: Path, method: str, kind: str) -> None:
    stage, params = PACKED[kind]
    parent = make(stage, pico_dir, **params)
    before = contents(parent)
    kept = make(lora, parent, method=method, epochs=2)
    assert contents(parent) == before
    assert {name for name in contents(kept) if "token" not in name and "generation" not in name} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert json.loads((kept / "adapter_config.json").read_text())["base_model_name_or_path"] == str(parent.resolve())
    assert loss(kept, TEXT) < loss(parent, TEXT) - 0.1


RELOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig
torch.set_num_threads(1)
for path in sys.argv[1:]:
    base = json.load(open(path + "/adapter_config.json"))["base_model_name_or_path"]
    packed = json.load(open(base + "/config.json")).get("quantization_config", {}).get("quant_method")
    unpacked = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    options = unpacked if packed == "compressed-tensors" else {}
    model = AutoModelForCausalLM.from_pretrained(path, **options)
    AutoTokenizer.from_pretrained(path)
    print(json.dumps(model(torch.arange(3, 60)[None]).logits[0, -1].tolist()))
"""


def test_adapters_reload_in_a_fresh_process(make: Make, pico_dir: Path) -> None:
    packed = {kind: make(stage, pico_dir, **params) for kind, (stage, params) in PACKED.items()}
    pairs = [
        (pico_dir, "dora"),
        (pico_dir, "ia3"),
        *((packed[kind], "lora") for kind in packed),
        (packed["nf4"], "ia3"),
    ]
    kept = [make(lora, p, method=m, epochs=2, **({"merge": False} if p is pico_dir else {})) for p, m in pairs]
    command = [sys.executable, "-c", RELOAD, *map(str, kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for path, line in zip(kept, done.stdout.splitlines(), strict=True):
        assert torch.allclose(torch.tensor(json.loads(line)), logits(path)[0, -1], atol=1e-4), path
        assert "MISSING" not in done.stderr


def test_a_soft_prompt_scores_and_generates(make: Make, pico_dir: Path) -> None:
    path = make(lora, pico_dir, method="prompt", tokens=5, samples=8)
    model, tokenizer = loaded(path), AutoTokenizer.from_pretrained(path)
    batch = tokenizer("A keeper counts", return_tensors="pt")
    ids, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        scored = model(input_ids=ids, attention_mask=mask).logits
        right = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=2)
    assert load_file(path / "adapter_model.safetensors")["prompt_embeddings"].shape == (5, 128)
    assert scored.shape[1] == 5 + ids.shape[1]  # the prompt's places come first
    assert right[0, ids.shape[1]] == scored[:, -ids.shape[1] :][0, -1].argmax()


def test_a_soft_prompt_leaves_room_for_the_text(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    with pytest.raises(WeighinError, match="255 leave no room for text in a window of 256 tokens"):
        lora(Checkpoint(pico_dir, "key"), tmp_path, data=str(text_file), method="prompt", tokens=255)


@pytest.mark.parametrize("target", [["q_proj", "down_proj"], "model.layers.0.mlp.down_proj"])
def test_ia3_takes_other_targets(make: Make, pico_dir: Path, target: Any) -> None:
    kept = load_file(
        make(lora, pico_dir, method="ia3", target=target, samples=8, merge=False) / "adapter_model.safetensors"
    )
    down = [w.shape for name, w in kept.items() if "down_proj" in name]
    assert down and all(shape == (1, 256) for shape in down)  # factors of what it reads
    assert len(kept) == (4 if isinstance(target, list) else 1)


FULL = {"config": {"dtype": "bfloat16"}}
NOTHING = {"merge": None, "method": "lora"}


@pytest.mark.parametrize(
    ("parent", "params", "message"),
    [
        (Outline(packed="torchao"), {"merge": True}, r"merge: a change cannot be added to packed weights \(torchao\)"),
        (Outline(), {"merge": True, "method": "prompt"}, "merge: a soft prompt .*Allowed: false"),
        (Outline(attached="lora"), {"merge": False}, r"cannot stand on another\. Allowed: true"),
        (Outline(attached="lora"), {"method": "prompt"}, r"cannot stand on another\. Merge the parent's"),
        (Outline(attached="lora", packed="torchao"), {}, r"cannot stand on another\. Merge the parent's"),
        (Outline(attached="prompt_tuning"), {}, "soft prompt cannot be merged"),
        (Outline(packed="awq"), {}, "packed by awq.*Allowed: dense weights, bitsandbytes"),
        (Outline(structure="shared"), {}, "share their weights.*the stage continue"),
        (Outline(FULL["config"], packed="bitsandbytes"), {"method": "ia3"}, "ia3 .* float32 only .got bfloat16"),
        (Outline(served="speculate"), {}, "only changes how a model is served"),
    ],
)
def test_what_lora_cannot_work_on_is_refused_at_plan(parent: Outline, params: dict[str, Any], message: str) -> None:
    assert lora.foresee is not None
    with pytest.raises(WeighinError, match=message):
        lora.foresee(parent, {**NOTHING, **params})


def test_lora_foresees_what_it_makes(make: Make, pico_dir: Path) -> None:
    assert lora.foresee is not None
    packed = [(make(PACKED[kind][0], pico_dir, **PACKED[kind][1]), method) for method, kind in ON_PACKED]
    adapter = make(lora, pico_dir, method="dora", epochs=2, merge=False)
    for parent, method in [*((pico_dir, method) for method in METHODS), *packed, (adapter, "lora")]:
        params = {"method": method, "epochs": 2}
        seen = lora.foresee(outline.read(parent), {**NOTHING, **params})
        made = outline.read(make(lora, parent, **params))
        assert (seen.packed, seen.attached, seen.vocabulary) == (made.packed, made.attached, made.vocabulary)


# -- continue -----------------------------------------------------------------------------------------------------


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


def test_continue_wants_dense_weights_and_enough_text(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(WeighinError, match="Put continue before the quantising stage"):
        continue_(Checkpoint(make(nf4, pico_dir), "key"), tmp_path)
    path = tmp_path / "short.txt"
    path.write_text("A keeper counts.\n", encoding="utf-8")
    with pytest.raises(WeighinError, match=r"max_length: .* tokens of text do not fill one row of 64"):
        continue_(Checkpoint(pico_dir, "key"), tmp_path, data=str(path), max_length=64)


# -- pretrain -----------------------------------------------------------------------------------------------------


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
    assert pretrain.foresee is not None and lora.foresee is not None
    given = pretrain.parameters(heads=6, hidden=60, share=2).model_dump()
    assert pretrain.foresee(Outline(), given).structure == "shared"
    kinds = {"layer_types": ["a", "b"], "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
    seen = pretrain.foresee(Outline(kinds), pretrain.parameters(layers=3, heads=6).model_dump())
    assert seen.config["layer_types"] == ["a", "b", "a"]
    assert seen.config["num_key_value_heads"] == 6  # as many as heads before, so as many as heads now
    assert lora.foresee(Outline(), {**NOTHING, "method": "prompt"}).attached == "prompt_tuning"


# -- on a trained model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heldout() -> list[str]:
    from weighin.harness.text import documents

    return documents("reference:heldout", samples=60, seed=0)


@pytest.mark.slow
def test_lora_wins_back_what_quantisation_lost(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    packed = make(rtn, base, bits=2, group_size=128)
    tuned = make(lora, packed, data="reference:calibration_text", epochs=2)
    lost, left = (loss(path, heldout) - loss(base, heldout) for path in (packed, tuned))
    assert lost > 0.04 and left < 0.6 * lost


@pytest.mark.slow
def test_continued_training_heals_a_pruned_model(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    pruned = make(prune, base, method="magnitude", sparsity=0.7)
    healed = make(continue_, pruned, data="reference:calibration_text", epochs=2)
    lost, left = (loss(path, heldout) - loss(base, heldout) for path in (pruned, healed))
    assert lost > 0.1 and left < lost / 2
    zeros = sum(int((w == 0).sum()) for n, w in load_file(healed / "model.safetensors").items() if "proj" in n)
    assert zeros >= sum(int((w == 0).sum()) for n, w in load_file(pruned / "model.safetensors").items() if "proj" in n)


@pytest.mark.slow
def test_from_scratch_is_worse_than_the_parent_and_better_than_chance(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    out = make(pretrain, base, data="reference:calibration_text", epochs=5)
    assert size(out) == size(base)
    assert loss(base, heldout) < loss(out, heldout) < 0.75 * math.log(1536)
