"""GPTQ: weights of 3, 4 or 8 bits in groups, rounded one column at a time while the rest makes up for the error.

Library: llm-compressor (`GPTQModifier`), written as packed compressed-tensors.
Paper: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323. Zeros are kept by the mask of section 3.5 of "SparseGPT", arXiv 2301.00774.

Costs: two calibration passes and a Cholesky factor of each layer's input covariance. Buys: a smaller file. Under
transformers without a GPU kernel the weights are unpacked to dense at the first forward: neither smaller in memory nor
faster there. vLLM and other runtimes that read compressed-tensors compute on the packed weights.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

from pydantic import PositiveInt

from weighin.adapters._calibrate import Calibration, calibrate
from weighin.adapters._hf import dense, head_names, linears, load_float32, save
from weighin.harness import Checkpoint, WeighinError, stage
from weighin.harness.text import text_files

if TYPE_CHECKING:
    import torch


@stage(
    needs=("llmcompressor", "compressed_tensors", "transformers", "torch", "datasets"),
    reads=text_files,
    example={"samples": 4, "max_length": 64},
)
def gptq(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[3, 4, 8] = 4,
    group_size: PositiveInt | Literal[-1] = 128,
    symmetric: bool = True,
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Quantise every linear layer but the head; weights that are exactly zero stay zero.

    `group_size` inputs of a row share a scale; with -1 it is the whole row.
    """
    with dense(parent, out, "gptq") as source:
        model, dtype = load_float32(source)
        _check_group_size(model, group_size)
        zeros = {name: layer.weight == 0 for name, layer in linears(model).items()}
        modifier = _modifier(
            {"num_bits": bits, "group_size": group_size, "symmetric": symmetric}, dtype, head_names(model)
        )
        with zeros_kept():
            calibrate(model, modifier, source, Calibration(data, samples, max_length, seed))
        lost = [name for name, layer in linears(model).items() if layer.weight[zeros[name]].any()]
        if lost:
            raise WeighinError(f"gptq: weights that were zero are not any more, in {', '.join(lost)}")
        _save_packed(model, dtype, out, source)


def _modifier(weights: Mapping[str, Any], dtype: "torch.dtype", ignore: list[str]) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.quantization import GPTQModifier

    # Scales are rounded to the dtype of the file before the weights are fitted to them, not after.
    rows = {"strategy": "channel", "group_size": None} if weights["group_size"] == -1 else {"strategy": "group"}
    args = QuantizationArgs(**{**weights, **rows, "scale_dtype": dtype})
    return GPTQModifier(config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=args)}, ignore=ignore)


def _save_packed(model: Any, dtype: "torch.dtype", out: Path, source: Path) -> None:
    from compressed_tensors.compressors import ModelCompressor

    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    save(model.to(dtype), out, source)
    compressor.update_config(str(out))


def _check_group_size(model: Any, group_size: int) -> None:
    widths = {name: layer.in_features for name, layer in linears(model).items()}
    misfit = {name: width for name, width in widths.items() if width % abs(group_size)}
    if misfit:
        common = math.gcd(*widths.values())
        allowed = [str(n) for n in range(1, common + 1) if common % n == 0 and (n >= 8 or common < 8)]
        name, width = next(iter(misfit.items()))
        raise WeighinError(
            f"gptq.group_size: {group_size} does not divide the input size {width} of {name} "
            f"({len(misfit)} of {len(widths)} layers do not fit). "
            f"Allowed for this model: -1 (a whole row), {', '.join(allowed)}"
        )


@contextmanager
def zeros_kept() -> Iterator[None]:
    """Within the block, GPTQ rounds a weight that was zero to zero, and the columns to its right make up for it.

    The library lets the error of earlier columns fill the zeros of a pruned parent. Rounding is the one place where a
    column's value is decided, so that is where the mask goes; the library's order of columns is noted on the way.
    """
    from llmcompressor.modifiers.gptq import gptq_quantize

    library: Any = gptq_quantize
    order, quantise = library.apply_activation_ordering, library.fake_quantize
    columns: Iterator[Any] = iter(())

    def ordered(weights: Any, *rest: Any) -> Any:
        nonlocal columns
        result = order(weights, *rest)
        columns = iter((result[0] != 0).unbind(-1))
        return result

    def rounded(column: Any, *rest: Any) -> Any:  # column: (rows, batch)
        return quantise(column, *rest).masked_fill(~next(columns).transpose(0, 1), 0)

    with (
        patch.object(library, "apply_activation_ordering", ordered),
        patch.object(library, "fake_quantize", rounded),
        # The fused GPU kernel rounds out of our sight; the plain one calls the function above.
        patch.dict(os.environ, {"LLMCOMPRESSOR_DISABLE_GPTQ_TRITON": "1"}),
    ):
        yield
