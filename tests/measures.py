"""What a checkpoint is and answers, how likely it finds a text, how far two are apart: what tests of stages compare."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

from weighin.adapters._hf import is_adapter
from weighin.harness import Sample, outline, structure
from weighin.harness.text import documents


def likelihood(path: Path, rows: list[dict[str, Any]], side: str) -> float:
    """Mean log-probability, nats, of what stands under `side` after its prompt."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    found = []
    for row in rows:
        start = len(tokenizer(row["prompt"]).input_ids)
        ids = tokenizer(row["prompt"] + row[side], return_tensors="pt").input_ids
        with torch.no_grad():
            likely = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        found.append(likely.gather(1, ids[0, start:, None]).sum().item())
    return sum(found) / len(found)


def margin(path: Path, rows: list[dict[str, Any]]) -> float:
    return likelihood(path, rows, "chosen") - likelihood(path, rows, "rejected")


def moved(before: Path, after: Path) -> float:
    """Largest change of a weight."""
    models = [AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (before, after)]
    return max((models[0][name] - models[1][name]).abs().max().item() for name in models[0])


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
    """The files of a directory."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def perplexity(path: Path, texts: int = 60) -> float:
    """On text of the reference world that no model has seen."""
    return math.exp(loss(path, documents("reference:heldout", samples=texts, seed=0)))


def by_metric(samples: list[Sample]) -> dict[str, list[Sample]]:
    """What a suite yielded, by metric."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        assert sample.metric
        found.setdefault(sample.metric.name, []).append(sample)
    return found
