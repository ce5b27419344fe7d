"""GPTQ: weights of 2, 3, 4 or 8 bits in groups, rounded one column at a time while the rest makes up for the error.

Library: llm-compressor (`GPTQModifier`), written as packed compressed-tensors.
Paper: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323. Zeros are kept by the mask of section 3.5 of "SparseGPT", arXiv 2301.00774.

Costs: two calibration passes and a Cholesky factor of each layer's input covariance. Buys: a smaller file. Under
transformers without a GPU kernel the weights are unpacked to dense at the first forward: neither smaller in memory nor
faster there. vLLM and other runtimes that read compressed-tensors compute on the packed weights.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from weighin.adapters._calibrate import Calibration
from weighin.adapters._hf import dense, load_float32
from weighin.adapters._quantize import Grid, check_layers, foresee, round_by_gptq, save_dense, save_packed
from weighin.harness import Checkpoint, stage
from weighin.harness.text import text_files


@stage(
    needs=("llmcompressor", "compressed_tensors", "transformers", "torch", "datasets"),
    reads=text_files,
    example={"samples": 4, "max_length": 64},
    foresee=partial(foresee, "gptq"),
)
def gptq(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[2, 3, 4, 8] = 4,
    group_size: PositiveInt | Literal[-1] = 128,
    symmetric: bool = True,
    misfit: Literal["refuse", "rows"] = "refuse",
    packed: bool = True,
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Quantise every linear layer but the head; weights that are exactly zero stay zero.

    `group_size` inputs of a row share a scale; with -1 it is the whole row, as with `misfit: rows` in layers whose
    inputs the groups do not divide. With `packed: false` the rounded weights are written as dense ones, no smaller than
    before, for a later stage to work on.
    """
    with dense(parent, out, "gptq") as source:
        model, dtype = load_float32(source)
        grid = Grid(bits, group_size, symmetric, misfit=misfit)
        check_layers(model, grid)
        round_by_gptq(model, grid, dtype, source, Calibration(data, samples, max_length, seed))
        (save_packed if packed else save_dense)(model, dtype, out, source)
