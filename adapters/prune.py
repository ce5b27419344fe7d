"""Pruning: set the least needed weights to zero, anywhere or in a fixed share of every short run (2:4, 4:8).

Library: llm-compressor (`WandaPruningModifier`, `SparseGPTModifier`); magnitude is plain torch, since the library's
works only while training.
Papers: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda),
arXiv 2306.11695. Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
arXiv 2301.00774. Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks"
(magnitude), arXiv 1506.02626. Mishra et al., "Accelerating Sparse Deep Neural Networks" (2:4), arXiv 2104.08378.

Costs: Wanda two passes over the calibration text, SparseGPT a Cholesky factor per layer besides, magnitude nothing.
Buys: zeros. The file stays as large and dense kernels as fast: only a runtime with sparse kernels gains speed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from weighin.adapters._calibrate import Calibration, calibrate
from weighin.adapters._hf import dense, linears, load_float32, save
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.text import text_files

if TYPE_CHECKING:
    import torch

Method = Literal["wanda", "sparsegpt", "magnitude"]
Pattern = Literal["unstructured", "2:4", "4:8"]


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return [] if params["method"] == "magnitude" else text_files(params)


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    if params["pattern"] != "unstructured" and params["sparsity"] != 0.5:
        raise WeighinError(
            f"sparsity: the pattern {params['pattern']} is half zeros, so only 0.5 fits (got {params['sparsity']})"
        )
    return outline.dense("prune", parent)


@stage(
    needs=("llmcompressor", "compressed_tensors", "transformers", "torch", "datasets"),
    reads=_reads,
    example={"samples": 4, "max_length": 64},
    foresee=_foresee,
)
def prune(
    parent: Checkpoint,
    out: Path,
    *,
    method: Method = "wanda",
    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    pattern: Pattern = "unstructured",
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Zero a share of every linear layer but the head. Magnitude reads no data."""
    with dense(parent, out, "prune") as source:
        model, dtype = load_float32(source)
        _check_pattern(model, pattern)
        if method == "magnitude":
            _magnitude(model, sparsity, pattern)
        else:
            modifier = _modifier(method, sparsity, pattern, list(linears(model)))
            calibrate(model, modifier, source, Calibration(data, samples, max_length, seed))
        save(model.to(dtype), out, source)


def smallest(weight: "torch.Tensor", sparsity: float, pattern: Pattern) -> "torch.Tensor":
    """Mask of the weights to drop: the smallest of a whole matrix (out, in), or n of every m along its inputs."""
    import torch

    size = weight.abs()
    mask = torch.zeros_like(size, dtype=torch.bool)
    if pattern == "unstructured":
        drop = size.flatten().argsort(stable=True)[: int(size.numel() * sparsity)]
        mask.view(-1)[drop] = True
    else:
        n, m = map(int, pattern.split(":"))
        drop = size.view(-1, m).argsort(dim=1, stable=True)[:, :n]
        mask.view(-1, m).scatter_(1, drop, True)
    return mask


def _magnitude(model: Any, sparsity: float, pattern: Pattern) -> None:
    import torch
    from tqdm import tqdm

    with torch.no_grad():
        for layer in tqdm(linears(model).values(), desc="prune"):
            layer.weight.masked_fill_(smallest(layer.weight, sparsity, pattern), 0)


def _modifier(method: Method, sparsity: float, pattern: Pattern, layers: list[str]) -> Any:
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    make = SparseGPTModifier if method == "sparsegpt" else WandaPruningModifier
    structure = "0:0" if pattern == "unstructured" else pattern
    # By name, one and all: the library's `ignore` misses the head (it looks for "lm_head" and calls it "lm_head."),
    # and a head often shares its weights with the embedding.
    return make(sparsity=sparsity, mask_structure=structure, targets=layers)


def _check_pattern(model: Any, pattern: Pattern) -> None:
    run = 1 if pattern == "unstructured" else int(pattern.split(":")[1])
    for name, layer in linears(model).items():
        if layer.in_features % run:
            raise WeighinError(
                f"prune.pattern: {pattern} needs input sizes divisible by {run}; {name} has {layer.in_features}. "
                "Allowed for this model: unstructured"
            )
