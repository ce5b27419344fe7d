"""Adapters: LoRA, DoRA, IA3 and soft prompts, on dense and on packed parents, merged and kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.conftest import TEXT
from tests.measures import contents, loaded, logits, loss
from weighin.adapters._hf import is_adapter
from weighin.adapters.gptq import gptq
from weighin.adapters.int8 import int8
from weighin.adapters.lora import RATES, lora
from weighin.adapters.nf4 import nf4
from weighin.harness import Checkpoint, Outline, outline
from weighin.results.errors import WeighinError

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
METHODS = list(RATES)
QUICK: dict[str, Any] = {"samples": 12, "max_length": 32}
PACKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq": (gptq, {"bits": 3, "group_size": 32, **QUICK}),
    "nf4": (nf4, {}),
    "int8": (int8, {}),
}
ON_PACKED = [("lora", "gptq"), ("lora", "nf4"), ("lora", "int8"), ("dora", "gptq"), ("ia3", "nf4"), ("prompt", "int8")]


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
    assert lora.foresee(Outline(), {**NOTHING, "method": "prompt"}).attached == "prompt_tuning"
    packed = [(make(PACKED[kind][0], pico_dir, **PACKED[kind][1]), method) for method, kind in ON_PACKED]
    adapter = make(lora, pico_dir, method="dora", epochs=2, merge=False)
    for parent, method in [*((pico_dir, method) for method in METHODS), *packed, (adapter, "lora")]:
        params = {"method": method, "epochs": 2}
        seen = lora.foresee(outline.read(parent), {**NOTHING, **params})
        made = outline.read(make(lora, parent, **params))
        assert (seen.packed, seen.attached, seen.vocabulary) == (made.packed, made.attached, made.vocabulary)
