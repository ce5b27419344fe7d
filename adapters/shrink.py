"""Shrinking: cut out whole neurons, attention head groups and blocks, so that a smaller plain model is left.

Library: plain torch; the result is an ordinary checkpoint with smaller sizes in its config.json.
Papers: Muralidharan et al., "Compact Language Models via Pruning and Knowledge Distillation" (Minitron: importance of
neurons and heads by their activations), arXiv 2407.14679. Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning
Approach for Large Language Models" (activation times weight), arXiv 2306.11695. Men et al., "ShortGPT: Layers in Large
Language Models are More Redundant Than You Expect" (block influence), arXiv 2403.03853. Kim et al., "Shortened LLaMA:
Depth Pruning for Large Language Models with Comparison of Retraining Methods" (loss without a block), arXiv 2402.02834.

Costs: one pass over the calibration text, and accuracy: train or distil the result afterwards. Buys: fewer weights on
disk and in memory, and fewer operations, on every runtime and without special kernels.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from weighin.adapters._calibrate import Calibration
from weighin.adapters._hf import dense, load_float32, save
from weighin.adapters._importance import choose
from weighin.adapters._shrink import Cut, rebuild, smaller
from weighin.harness import Checkpoint, Outline, outline, stage
from weighin.harness.text import text_files

log = logging.getLogger(__name__)


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return [] if params["method"] == "magnitude" and not params["layers"] else text_files(params)


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    found = outline.plain("shrink", parent)
    cut = Cut(params["ffn"], params["heads"], params["layers"], params["multiple"])
    return found.but(config={**found.config, **smaller(found.config, cut)})


@stage(
    needs=("transformers", "torch"),
    reads=_reads,
    example={"ffn": 0.25, "samples": 4, "max_length": 64},
    foresee=_foresee,
)
def shrink(
    parent: Checkpoint,
    out: Path,
    *,
    ffn: Annotated[float, Field(ge=0, lt=1)] = 0.25,
    heads: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    layers: NonNegativeInt = 0,
    method: Literal["activation", "magnitude"] = "activation",
    depth: Literal["influence", "loss"] = "influence",
    multiple: PositiveInt = 8,
    data: str = "reference:calibration_text",
    samples: PositiveInt = 64,
    max_length: PositiveInt = 256,
    seed: int = 0,
) -> None:
    """Drop a share `ffn` of each block's neurons and `heads` of its head groups, and `layers` whole blocks.

    A head group is a key-value head with its query heads. Every block keeps the same number, the nearest to what was
    asked for, of neurons a multiple of `multiple` (so that quantisation in groups fits later). `method` ranks neurons
    and groups: by what they put out over the text times the weights that read it, or by their weights alone, without
    text. Blocks are always ranked on the text, by `depth`: their influence, 1 - cos(input, output), or the loss without
    them, which takes a pass for each.
    """
    cut = Cut(ffn, heads, layers, multiple, method, depth)
    with dense(parent, out, "shrink") as source:
        model, dtype = load_float32(source)
        kept = choose(model, cut, source, Calibration(data, samples, max_length, seed))
        log.info("kept blocks: %s", kept.blocks)
        save(rebuild(model, cut, kept).to(dtype), out, source)
