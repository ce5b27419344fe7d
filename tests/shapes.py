"""Small models of any architecture, and what the tests of stages that change a model's shape ask of them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from weighin.adapters._hf import copy_companions, load

IDS = torch.arange(5, 25)[None]
QUICK: dict[str, Any] = {"samples": 12, "max_length": 32}
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "attention_bias": True,
    "mlp_bias": True,
}


def tiny(out: Path, source: Path, kind: str = "llama", **changes: Any) -> Any:
    """A model with random weights and biases, and the tokenizer of `source`, as a directory; and the model."""
    sizes = {"vocab_size": AutoConfig.from_pretrained(source).vocab_size, "max_position_embeddings": 256}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = AutoConfig.for_model(kind, **{**SHAPE, **sizes, **special, **changes})
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.15)
    model.save_pretrained(out)
    copy_companions(source, out)
    return model


def logits(path: Path) -> torch.Tensor:
    """Answers of a directory, reloaded through this project in float32: (1, 20, vocabulary)."""
    with torch.no_grad():
        result: torch.Tensor = load(path, dtype=torch.float32)(IDS).logits
    return result


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a directory's file."""
    found: dict[str, torch.Tensor] = load_file(path / "model.safetensors")
    return found


def plant_outliers(parent: Path, out: Path, factor: float = 64.0) -> Path:
    """The same function, its norms putting out a few channels `factor` times as large as they were."""
    shutil.copytree(parent, out)
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        readers = [
            (block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]),
            (block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]),
        ]
        for norm, layers in readers:
            norm.weight.data[[3, 40, 77]] *= factor
            for layer in layers:
                layer.weight.data[:, [3, 40, 77]] /= factor
    model.save_pretrained(out)
    assert torch.equal(logits(out), logits(parent)), "a power of two changes no digit"
    return out
