"""Each stage, alone and in chains, on the pico model: what it makes is what its label says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from weighin.adapters.gptq import gptq
from weighin.adapters.int8 import int8
from weighin.adapters.lora import lora
from weighin.adapters.nf4 import nf4
from weighin.adapters.prune import prune, smallest
from weighin.harness import Checkpoint
from weighin.results.errors import WeighinError

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
QUICK: dict[str, Any] = {"samples": 12, "max_length": 32}


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Dense weights of the linear layers after a forward, as they act."""
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model(torch.arange(8)[None])
    layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    return {n: m.weight.detach() for n, m in layers.items()}


def logits(path: Path, text_file: Path) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(path)(text_file.read_text(), return_tensors="pt", truncation=True).input_ids
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path)(ids).logits.float()


def loss(path: Path, text_file: Path) -> float:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    rows = [tokenizer(line, return_tensors="pt").input_ids for line in text_file.read_text().splitlines()[:5]]
    with torch.no_grad():
        return sum(model(row, labels=row).loss.item() for row in rows) / len(rows)


def disk_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.glob("*.safetensors"))


ALONE = {
    "gptq": (gptq, {"bits": 4, "group_size": 64, **QUICK}),
    "gptq of 3 bits": (gptq, {"bits": 3, "group_size": 32, **QUICK}),
    "gptq of 8 bits": (gptq, {"bits": 8, **QUICK}),
    "gptq with zero points": (gptq, {"symmetric": False, **QUICK}),
    "gptq by whole rows": (gptq, {"group_size": -1, **QUICK}),
    "int8": (int8, {}),
    "nf4": (nf4, {}),
    "fp4 with quantised scales": (nf4, {"quant_type": "fp4", "double_quant": True}),
    "wanda": (prune, {"sparsity": 0.3, **QUICK}),
    "sparsegpt 2:4": (prune, {"method": "sparsegpt", "pattern": "2:4", **QUICK}),
    "magnitude 4:8": (prune, {"method": "magnitude", "pattern": "4:8"}),
    "lora": (lora, {"epochs": 2}),
    "lora kept as an adapter": (lora, {"epochs": 2, "merge": False}),
}
PACKED = [name for name in ALONE if name.startswith(("gptq", "int8", "nf4", "fp4"))]


@pytest.fixture(scope="module")
def built(make: Make, pico_dir: Path) -> dict[str, Path]:
    return {name: make(stage, pico_dir, **params) for name, (stage, params) in ALONE.items()}


RELOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
base, *paths = sys.argv[1:]
ids = AutoTokenizer.from_pretrained(base)("Where does the heron sleep?", return_tensors="pt").input_ids
right = AutoModelForCausalLM.from_pretrained(base)(ids).logits
for path in paths:
    assert AutoTokenizer.from_pretrained(path)("Where does the heron sleep?", return_tensors="pt").input_ids.equal(ids)
    model = AutoModelForCausalLM.from_pretrained(path)
    answer = model(ids).logits
    print(json.dumps([type(model).__name__, answer.isfinite().all().item(), (answer - right).abs().max().item(),
                      model.generation_config.eos_token_id]))
"""


def test_reloads_plainly_in_a_fresh_process_and_differs_from_the_parent(built: dict[str, Path], pico_dir: Path) -> None:
    command = [sys.executable, "-c", RELOAD, str(pico_dir), *map(str, built.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, line in zip(built, done.stdout.splitlines(), strict=True):
        kind, finite, distance, eos = json.loads(line)
        assert (kind, finite, eos) == ("LlamaForCausalLM", True, 1), name
        assert 0 < distance < 10, name


def test_directory_holds_weights_tokenizer_and_settings_only(built: dict[str, Path], pico_dir: Path) -> None:
    parent = {p.name for p in pico_dir.iterdir()}
    for name, path in built.items():
        adapter = {"adapter_config.json", "adapter_model.safetensors", "generation_config.json"}
        tokenizer = {"tokenizer.json", "tokenizer_config.json"}
        expected = adapter | tokenizer if name == "lora kept as an adapter" else parent
        assert {p.name for p in path.iterdir()} == expected, name
        for file in (*tokenizer, "generation_config.json"):
            assert (path / file).read_bytes() == (pico_dir / file).read_bytes()


@pytest.mark.parametrize("name", PACKED)
def test_packed_weights_are_smaller_on_disk(built: dict[str, Path], pico_dir: Path, name: str) -> None:
    parent, child = disk_bytes(pico_dir), disk_bytes(built[name])
    layers = sum(w.nbytes for w in weights(pico_dir).values())
    assert child < parent - layers * (0.6 if "8" in name else 0.75)


def test_head_and_embedding_are_untouched(built: dict[str, Path], pico_dir: Path) -> None:
    before = load_file(pico_dir / "model.safetensors")["model.embed_tokens.weight"]
    for name, path in built.items():
        if name != "lora kept as an adapter":
            after = load_file(path / "model.safetensors")
            assert torch.equal(after["model.embed_tokens.weight"], before), name
            assert not [key for key in after if key.startswith("lm_head")], name  # tied, so never a second copy


def test_int8_weights_stay_int8_in_memory(built: dict[str, Path]) -> None:
    for weight in weights(built["int8"]).values():
        assert weight.qdata.dtype == torch.int8
        assert weight.qdata.nbytes == weight.numel()


def test_nf4_weights_stay_packed_in_memory(built: dict[str, Path]) -> None:
    for weight in weights(built["nf4"]).values():
        assert weight.dtype == torch.uint8


def assert_pattern(weight: torch.Tensor, pattern: str, sparsity: float) -> None:
    zeros = weight == 0
    if pattern == "unstructured":
        assert abs(zeros.float().mean().item() - sparsity) < 0.01
    else:
        n, m = map(int, pattern.split(":"))
        assert (zeros.view(-1, m).sum(1) >= n).all()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4:8"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "magnitude"])
def test_prune_zeroes_what_it_says(make: Make, pico_dir: Path, method: str, pattern: str) -> None:
    out = make(prune, pico_dir, method=method, pattern=pattern, **QUICK)
    before, after = load_file(pico_dir / "model.safetensors"), load_file(out / "model.safetensors")
    for name, weight in after.items():
        if name.endswith("proj.weight"):
            assert_pattern(weight, pattern, 0.5)
            kept = weight != 0
            assert method == "sparsegpt" or torch.equal(weight[kept], before[name][kept])
        else:
            assert torch.equal(weight, before[name]), name


def test_magnitude_drops_the_smallest() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, -2.0], [8.0, 5.0, -6.0, 7.0]])
    assert smallest(weight, 0.5, "unstructured").tolist() == [[True] * 4, [False] * 4]
    assert smallest(weight, 0.5, "2:4").tolist() == [[True, False, False, True], [False, True, True, False]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [3, 8])
def test_gptq_keeps_the_zeros_of_a_pruned_parent(make: Make, pico_dir: Path, bits: int, symmetric: bool) -> None:
    pruned = make(prune, pico_dir, pattern="2:4", **QUICK)
    chained = make(gptq, pruned, bits=bits, symmetric=symmetric, **QUICK)
    for name, weight in weights(chained).items():
        assert_pattern(weight, "2:4", 0.5)
        assert not weight[weights(pruned)[name] == 0].any()


def test_gptq_errs_less_than_rounding(make: Make, pico_dir: Path, text_file: Path) -> None:
    right = logits(pico_dir, text_file)
    gptq_error = (logits(make(gptq, pico_dir, bits=3, samples=40), text_file) - right).square().mean()
    model = AutoModelForCausalLM.from_pretrained(pico_dir)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            groups = layer.weight.data.view(-1, 128)
            scale = groups.abs().amax(1, keepdim=True) / 3.5
            layer.weight.data = ((groups / scale).round().clamp(-4, 3) * scale).view_as(layer.weight)
    ids = AutoTokenizer.from_pretrained(pico_dir)(text_file.read_text(), return_tensors="pt", truncation=True).input_ids
    assert gptq_error < 0.9 * (model(ids).logits - right).square().mean()


@pytest.mark.parametrize("name", ["gptq", "int8", "nf4", "wanda", "sparsegpt 2:4", "lora", "lora kept as an adapter"])
def test_same_seed_same_bytes(make: Make, built: dict[str, Path], pico_dir: Path, name: str) -> None:
    stage, params = ALONE[name]
    (file,) = built[name].glob("*.safetensors")
    torch.rand(3)  # whatever was drawn before must not matter
    assert (make(stage, pico_dir, again=1, **params) / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["gptq", "wanda", "lora"])
def test_another_seed_other_weights(make: Make, built: dict[str, Path], pico_dir: Path, name: str) -> None:
    stage, params = ALONE[name]
    other = make(stage, pico_dir, seed=1, **params)
    assert (other / "model.safetensors").read_bytes() != (built[name] / "model.safetensors").read_bytes()


def test_lora_lowers_the_loss_merged_and_kept(built: dict[str, Path], pico_dir: Path, text_file: Path) -> None:
    merged, kept = loss(built["lora"], text_file), loss(built["lora kept as an adapter"], text_file)
    assert merged < loss(pico_dir, text_file) - 0.2
    assert merged == pytest.approx(kept, abs=1e-4)


def test_a_kept_adapter_is_merged_before_its_weights_are_rewritten(make: Make, built: dict[str, Path]) -> None:
    kept, merged = built["lora kept as an adapter"], built["lora"]
    for stage, params in [(gptq, {"bits": 8, **QUICK}), (int8, {}), (prune, {"method": "magnitude"}), (lora, {})]:
        left, right = load_file(make(stage, kept, **params) / "model.safetensors"), make(stage, merged, **params)
        for name, weight in load_file(right / "model.safetensors").items():
            assert torch.allclose(left[name].float(), weight.float(), atol=1e-5), (stage.call.__name__, name)


@pytest.mark.parametrize(
    ("stage", "params"),
    [
        (gptq, QUICK),
        (prune, {"method": "sparsegpt", **QUICK}),
        (lora, {}),
        (lora, {"merge": False}),
        (nf4, {}),
        (int8, {}),
    ],
)
def test_sixteen_bits_on_disk_stay_sixteen_bits(make: Make, half_dir: Path, stage: Any, params: dict[str, Any]) -> None:
    out = make(stage, half_dir, **params)
    (file,) = out.glob("*.safetensors")
    wide = [name for name, w in load_file(file).items() if w.dtype == torch.float32]
    assert all(name.endswith(("absmax", "quant_map", "_scale")) for name in wide)  # the libraries' own, for each block
    assert not (wide and stage in (gptq, prune, lora))
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


@pytest.mark.parametrize("stage", [gptq, int8, nf4, prune])
@pytest.mark.parametrize("parent", ["gptq", "int8", "nf4"])
def test_packed_parents_are_refused(built: dict[str, Path], tmp_path: Path, parent: str, stage: Any) -> None:
    with pytest.raises(WeighinError, match=f"already quantised .*Put {stage.call.__name__} before"):
        stage(Checkpoint(built[parent], "key"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_adapter_on_an_adapter_is_refused(built: dict[str, Path], tmp_path: Path, text_file: Path) -> None:
    with pytest.raises(WeighinError, match="cannot stand on another"):
        lora(Checkpoint(built["lora kept as an adapter"], "key"), tmp_path, data=str(text_file), merge=False)
