"""AWQ: weights of 2, 3, 4 or 8 bits in groups, after scaling up the input channels that matter most to the output.

Library: llm-compressor (`AWQModifier`), written as packed compressed-tensors.
Paper: Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration",
arXiv 2306.00978.

Costs: a search that runs every attention and MLP block `trials` times over the calibration text: minutes where GPTQ
takes seconds. Buys: a smaller file, often closer to its parent than rounding alone, though not always: scales are
chosen for one block at a time, as if the others were exact (on the reference model it wins at 3 bits, not at 2 and 4).
They are folded into the norms and layers before, so they cost nothing at run time. Under transformers without a GPU
kernel the weights are unpacked to dense at the first forward: neither smaller in memory nor faster there. vLLM computes
on the packed weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from unittest.mock import patch

from pydantic import Field, PositiveInt

from weighin.adapters._calibrate import Calibration, calibrate
from weighin.adapters._hf import dense, load_float32
from weighin.adapters._quantize import (
    Grid,
    check_layers,
    check_mapped,
    check_same_function,
    foresee_named,
    onto,
    probe,
    save_dense,
    save_packed,
)
from weighin.harness import Checkpoint, stage
from weighin.harness.text import text_files


@stage(
    needs=("llmcompressor", "compressed_tensors", "transformers", "torch", "datasets"),
    reads=text_files,
    example={"samples": 4, "max_length": 64, "trials": 4},
    foresee=partial(foresee_named, "awq"),
)
def awq(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[2, 3, 4, 8] = 4,
    group_size: PositiveInt | Literal[-1] = 128,
    symmetric: bool = False,
    misfit: Literal["refuse", "rows"] = "refuse",
    packed: bool = True,
    duo_scaling: bool | Literal["both"] = "both",
    trials: Annotated[int, Field(ge=4)] = 20,
    data: str = "reference:calibration_text",
    samples: PositiveInt = 32,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Quantise every linear layer but the head; weights that are exactly zero stay zero, zero being on every grid.

    `group_size` inputs of a row share a scale; with -1 it is the whole row, as with `misfit: rows` in layers whose
    inputs the groups do not divide. With `packed: false` the rounded weights are written as dense ones, no smaller than
    before, for a later stage to work on. `trials` is how many scales are tried for each norm or layer, from none at
    all to the full size of the activations. `duo_scaling` counts the size of the weights in as well; `both` spends half
    of the trials on either way.
    """
    with dense(parent, out, "awq") as source:
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform import AWQModifier
        from llmcompressor.modifiers.transform.awq.dynamic_mappings import get_layer_mappings_from_model

        model, dtype = load_float32(source)
        grid = Grid(bits, group_size, symmetric, misfit=misfit)
        check_layers(model, grid)
        mappings = get_layer_mappings_from_model(model)
        check_mapped("awq", model, [(each.smooth_layer, *each.balance_layers) for each in mappings])
        text = Calibration(data, samples, max_length, seed)
        before = probe(model, source, text)
        search = AWQModifier(mappings=mappings, duo_scaling=duo_scaling, n_grid=trials)
        rounding = QuantizationModifier(**onto(grid, model, dtype))
        with _unpinned():
            calibrate(model, [search, rounding], source, text)
        check_same_function("awq", model, before, probe(model, source, text))
        (save_packed if packed else save_dense)(model, dtype, out, source)


@contextmanager
def _unpinned() -> Iterator[None]:
    """The library pins memory for copies to an accelerator, which torch refuses where there is none."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    with patch.object(IntermediatesCache, "pin_memory", lambda *_: None):
        yield
