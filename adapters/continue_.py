"""Continue: go on training all weights on plain text, to learn a domain or to heal what pruning broke.

Library: the transformers `Trainer`: AdamW, the rate rising over the warm-up and falling along a cosine, all in float32.
Papers: Gururangan et al., "Don't Stop Pretraining: Adapt Language Models to Domains and Tasks", arXiv 2004.10964.
Zeros that stay zero while the rest is trained: Han, Pool, Tran, Dally, "Learning both Weights and Connections for
Efficient Neural Networks", arXiv 1506.02626.

Costs: a forward and a backward pass over the text per epoch, and 16 bytes a parameter (weights, gradients and two
moments in float32). Buys: a model that knows the text, as large and as fast as its parent. What the text does not
speak of is slowly forgotten.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._hf import dense, load_float32, save
from weighin.adapters._train import Schedule, Text, packed_rows, train
from weighin.adapters._trained import zeros_kept
from weighin.harness import Checkpoint, Outline, outline, stage
from weighin.harness.text import text_files


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    return outline.dense("continue", parent)


@stage(
    needs=("transformers", "torch", "accelerate"),
    reads=text_files,
    example={"samples": 16, "max_length": 64, "steps": 2},
    foresee=_foresee,
)
def continue_(
    parent: Checkpoint,
    out: Path,
    *,
    data: str = "reference:calibration_text",
    samples: PositiveInt | None = None,
    max_length: Annotated[int, Field(gt=1)] = 256,
    learning_rate: PositiveFloat = 3e-4,
    epochs: PositiveInt = 1,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    keep_zeros: bool = True,
    seed: int = 0,
) -> None:
    """Train on rows of `max_length` tokens, one document after the other.

    With `keep_zeros`, weights of linear layers that are exactly zero stay so: a pruned model stays as sparse as it is.
    """
    with dense(parent, out, "continue") as source:
        model, dtype = load_float32(source)
        rows = packed_rows(model, source, Text(data, samples, max_length, seed))
        schedule = Schedule(
            learning_rate, batch_size, epochs, steps, warmup=warmup, decay=0.01, curve="cosine", seed=seed
        )
        with zeros_kept(model, "continue", keep_zeros):
            train(model, rows, schedule, "continue")
        save(model.to(dtype), out, source)
