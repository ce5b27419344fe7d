"""How likely a model finds a text, and how far two models are apart: what tests of training compare."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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


def perplexity(path: Path) -> float:
    """On text of the reference world that no model has seen."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    texts = documents("reference:heldout", samples=60, seed=0)
    rows = [tokenizer(text, return_tensors="pt").input_ids for text in texts]
    with torch.no_grad():
        total = sum(model(row, labels=row).loss.item() * (row.shape[1] - 1) for row in rows)
    return math.exp(total / sum(row.shape[1] - 1 for row in rows))
