"""Factorisation: keep every linear layer as a product of two thin ones, by a truncated singular value decomposition.

Library: plain torch.
Papers: Wang, Zheng, Wan, Zhang, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
Compression" (whitening by the Cholesky factor of the inputs' second moment), arXiv 2403.07378. Eckart, Young, "The
approximation of one matrix by another of lower rank", Psychometrika 1, 1936.

Costs: a decomposition of each layer, and with `activation` one pass over the calibration text and 4 bytes for every
pair of inputs of a layer. Buys: fewer weights on disk and in memory and fewer operations, though in two smaller
products. The result reloads through this project only, unless `dense` multiplies the factors out again, which saves
nothing and shows what the approximation costs.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from weighin.adapters._calibrate import Calibration
from weighin.adapters._feed import Watch, feed
from weighin.adapters._hf import dense as dense_weights
from weighin.adapters._hf import linears, load_float32, save
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.structure import Structure, apply
from weighin.harness.text import text_files

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Share = Annotated[float, Field(gt=0, lt=1)]


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return text_files(params) if params["method"] == "activation" else []


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    if (params["ratio"] is None) == (params["energy"] is None):
        given = "neither" if params["ratio"] is None else "both"
        raise WeighinError(f"factorize: give either ratio or energy (got {given})")
    found = outline.plain("factorize", parent)
    return found if params["dense"] else found.but(structure="factors")


@stage(
    needs=("transformers", "torch"),
    reads=_reads,
    example={"ratio": 0.5, "samples": 4, "max_length": 64},
    foresee=_foresee,
)
def factorize(
    parent: Checkpoint,
    out: Path,
    *,
    method: Literal["svd", "activation"] = "activation",
    ratio: Share | None = None,
    energy: Share | None = None,
    dense: bool = False,
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Factorise every linear layer but the head, as far as that makes it smaller.

    The rank comes from `ratio`, the share of each layer's weights that its factors may have, or from `energy`, the
    share of its squared singular values that they keep: those of the weights (`svd`, which reads no data), or of the
    weights times a square root of their inputs' second moment over the text (`activation`).
    """
    with dense_weights(parent, out, "factorize") as source:
        model, dtype = load_float32(source)
        roots: dict[str, torch.Tensor] = {}
        if method == "activation":
            roots = input_roots(model, source, Calibration(data, samples, max_length, seed))
        found = _factorised(model, roots, ratio, energy)
        if dense:
            for name, (up, down) in found.items():
                model.get_submodule(name).weight.data = (up @ down).float()
        else:
            _put(model, found)
        save(model.to(dtype), out, source)


def factors(
    weight: "torch.Tensor", root: "torch.Tensor | None", *, ratio: float | None, energy: float | None
) -> "tuple[torch.Tensor, torch.Tensor] | None":
    """(out, rank) and (rank, in), float64, whose product is nearest to `weight` (out, in); None if they save nothing.

    Near in the sum of squares of (weight - up down) root, where `root` (in, in, lower triangular) times its transpose
    is the second moment of the inputs: then it is the error of the layer's outputs. SVD-LLM, section 3.
    """
    import torch

    rows, columns = weight.shape
    matrix = weight.double() if root is None else weight.double() @ root
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = rank_for(values, rows, columns, ratio=ratio, energy=energy)
    if rank * (rows + columns) >= rows * columns:
        return None
    scale = values[:rank].sqrt()
    up, down = left[:, :rank] * scale, scale[:, None] * right[:rank]
    if root is not None:
        down = torch.linalg.solve_triangular(root, down, upper=False, left=False)
    return up, down


def rank_for(values: "torch.Tensor", rows: int, columns: int, *, ratio: float | None, energy: float | None) -> int:
    """The largest rank whose factors have at most `ratio` of the weights, or the smallest that keeps `energy`."""
    if ratio is not None:
        return max(1, math.floor(ratio * rows * columns / (rows + columns)))
    squares = values.square().cumsum(0)
    return int((squares < (energy or 1.0) * squares[-1]).sum()) + 1


def input_roots(model: Any, source: Path, text: Calibration) -> "dict[str, torch.Tensor]":
    """Cholesky factor (in, in), float64, of the mean of x x^T over each layer's inputs x. Layers that read the same
    numbers (query, key and value; gate and up) have one between them."""
    moments: dict[str, torch.Tensor] = {}
    owner: dict[str, str] = {}
    last: tuple[str, torch.Tensor] | None = None  # the tensor itself: while it is held, no other has its address

    def watch(name: str) -> Watch:
        def look(given: "torch.Tensor", _: "torch.Tensor") -> None:
            nonlocal last
            same = last is not None and last[1].data_ptr() == given.data_ptr()
            if owner.setdefault(name, last[0] if last and same else name) == name:
                moments[name] = given.T @ given + moments.get(name, 0)
            last = (owner[name], given)

        return look

    layers = linears(model)
    tokens = feed(model, source, text, {layer: watch(name) for name, layer in layers.items()}).tokens
    roots = {name: cholesky(moment.cpu().double() / tokens) for name, moment in moments.items()}
    return {name: roots[owner[name]] for name in layers if name in owner}


def cholesky(moment: "torch.Tensor") -> "torch.Tensor":
    """Lower triangular factor of a symmetric matrix, with as little added to its diagonal as makes it definite.

    Fewer tokens than inputs, or an input that is always zero, leave it only semi-definite.
    """
    import torch

    if not moment.isfinite().all():
        raise WeighinError("factorize: the inputs of a layer are not finite. Check the parent's weights")
    unit = torch.eye(len(moment), dtype=moment.dtype)
    step = float(moment.diagonal().mean()) or 1.0
    for power in range(-8, 1):
        root: torch.Tensor = (found := torch.linalg.cholesky_ex(moment + 10.0**power * step * unit)).L
        if not found.info:
            return root
    raise WeighinError("factorize: the second moment of a layer's inputs has no Cholesky factor")


def _factorised(
    model: Any, roots: "Mapping[str, torch.Tensor]", ratio: float | None, energy: float | None
) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
    from tqdm import tqdm

    found = {}
    layers = linears(model)
    for name, layer in tqdm(layers.items(), desc="factorize"):
        pair = factors(layer.weight.detach(), roots.get(name), ratio=ratio, energy=energy)
        if pair is not None:
            found[name] = pair
    if not found:
        asked = f"ratio {ratio}" if ratio is not None else f"energy {energy}"
        raise WeighinError(f"factorize: at {asked} no layer's factors are smaller than the layer. Lower it")
    log.info("factorised %d of %d layers", len(found), len(layers))
    return found


def _put(model: Any, found: "Mapping[str, tuple[torch.Tensor, torch.Tensor]]") -> None:
    """Put factors in the place of layers; a bias stays what it was."""
    biases = {name: model.get_submodule(name).bias for name in found}
    apply(model, Structure({name: down.shape[0] for name, (_, down) in found.items()}))
    for name, (up, down) in found.items():
        layer = model.get_submodule(name)
        layer.up.weight.data, layer.down.weight.data = up.float(), down.float()
        if biases[name] is not None:
            layer.up.bias.data = biases[name].data
