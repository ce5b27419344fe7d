"""RTN: weights of 2, 3, 4 or 8 bits in groups, each rounded to the nearest value of its group's grid.

Library: llm-compressor (`QuantizationModifier`), written as packed compressed-tensors.
Papers: the grid is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877; "round-to-nearest" is the baseline that GPTQ (arXiv 2210.17323)
and AWQ (arXiv 2306.00978) are measured against.

Costs: seconds, and no data. Buys: a smaller file, and the yardstick for GPTQ, AWQ and QAT. Under transformers without a
GPU kernel the weights are unpacked to dense at the first forward: neither smaller in memory nor faster there, and with
activations of 8 bits slower, because they are rounded besides. vLLM reads the file and computes on the packed weights
(W8A8 with whole rows, `group_size: -1`).
"""

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from weighin.adapters._hf import dense, load_float32
from weighin.adapters._quantize import Grid, check_layers, foresee, round_to_nearest, save_dense, save_packed
from weighin.harness import Checkpoint, stage


@stage(needs=("llmcompressor", "compressed_tensors", "transformers", "torch"), foresee=partial(foresee, "rtn"))
def rtn(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[2, 3, 4, 8] = 4,
    group_size: PositiveInt | Literal[-1] = 128,
    symmetric: bool = True,
    activations: Literal[16, 8] = 16,
    misfit: Literal["refuse", "rows"] = "refuse",
    packed: bool = True,
) -> None:
    """Round every linear layer but the head; weights that are exactly zero stay zero, zero being on every grid.

    `group_size` inputs of a row share a scale; with -1 it is the whole row, as with `misfit: rows` in layers whose
    inputs the groups do not divide. With `activations` of 8 bits each token's inputs of a layer are rounded to int8
    too, with a scale found at run time. With `packed: false` the rounded weights are written as dense ones, no smaller
    than before, for a later stage to work on.
    """
    with dense(parent, out, "rtn") as source:
        model, dtype = load_float32(source)
        grid = Grid(bits, group_size, symmetric, activations, misfit)
        check_layers(model, grid)
        round_to_nearest(model, grid, dtype)
        (save_packed if packed else save_dense)(model, dtype, out, source)
