"""SmoothQuant: 8-bit weights and activations, after moving the outliers of the activations into the weights.

Library: llm-compressor (`SmoothQuantModifier`, then `QuantizationModifier` or `GPTQModifier`), written as
compressed-tensors.
Paper: Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", arXiv 2211.10438.

Costs: a pass over the calibration text, two more with GPTQ. Buys: a file with 8 bits a weight, and activations that can
be rounded to int8 although a few channels are far larger than the rest. Under transformers the weights are unpacked to
dense at the first forward and the activations are rounded besides: no smaller in memory, and slower. vLLM multiplies
int8 by int8.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from weighin.adapters._calibrate import Calibration, calibrate
from weighin.adapters._hf import dense, load_float32
from weighin.adapters._quantize import (
    Grid,
    check_layers,
    check_mapped,
    check_same_function,
    foresee_named,
    probe,
    round_by_gptq,
    round_to_nearest,
    save_packed,
)
from weighin.harness import Checkpoint, stage
from weighin.harness.text import text_files


@stage(
    needs=("llmcompressor", "compressed_tensors", "transformers", "torch", "datasets"),
    reads=text_files,
    example={"samples": 4, "max_length": 64},
    foresee=partial(foresee_named, "smoothquant"),
)
def smoothquant(
    parent: Checkpoint,
    out: Path,
    *,
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5,
    weights: Literal["rtn", "gptq"] = "rtn",
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Smooth, then quantise every linear layer but the head: weights to int8 by rows, inputs to int8 by token.

    `strength` is the paper's alpha, the share of the difficulty that moves from activations to weights. `weights` says
    how these are rounded. Weights that are exactly zero stay zero.
    """
    with dense(parent, out, "smoothquant") as source:
        from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
        from llmcompressor.modifiers.transform.smoothquant.dynamic_mappings import get_layer_mappings_from_model

        model, dtype = load_float32(source)
        text, grid = Calibration(data, samples, max_length, seed), Grid(bits=8, activations=8)
        check_layers(model, grid)
        mappings = get_layer_mappings_from_model(model)
        check_mapped("smoothquant", model, [(*reading, before) for reading, before in mappings])
        before = probe(model, source, text)
        calibrate(model, SmoothQuantModifier(mappings=mappings, smoothing_strength=strength), source, text)
        check_same_function("smoothquant", model, before, probe(model, source, text))
        if weights == "gptq":
            round_by_gptq(model, grid, dtype, source, text)
        else:
            round_to_nearest(model, grid, dtype)
        save_packed(model, dtype, out, source)
