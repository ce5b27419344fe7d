"""QAT: train with rounded weights, so that the model learns to live on a grid of 2, 3, 4 or 8 bits; the parent teaches.

Library: torchao (`QATConfig`, prepare and convert) and the transformers Trainer; written as packed compressed-tensors.
Paper: Liu et al., "LLM-QAT: Data-Free Quantization Aware Training for Large Language Models", arXiv 2305.17888 (text
that the model writes itself, and the parent's token distributions as the target). Gradients pass the rounding as if it
were not there: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation", arXiv 1308.3432.

Costs: training of all weights with a forward pass of the parent at every step, and the memory for both. Buys: a smaller
file that keeps far more of its parent than rounding does at 2 bits. Under transformers without a GPU kernel the weights
are unpacked to dense at the first forward: neither smaller in memory nor faster there. (torchao's own file, the
alternative, keeps a whole byte for each weight of 2 bits.)
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._distill import Lesson, teaching
from weighin.adapters._hf import dense, fit, linears, load_float32, load_tokenizer
from weighin.adapters._quantize import Grid, check_layers, foresee, onto, save_packed
from weighin.adapters._sample import Writing, end_tokens, write
from weighin.adapters._train import Row, Schedule, Text, text_rows, train
from weighin.adapters._trained import zeros_kept
from weighin.harness import Checkpoint, WeighinError, stage
from weighin.harness.text import text_files

if TYPE_CHECKING:
    import torch


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return [] if params["data"] is None else text_files(params)


@stage(
    needs=("torchao", "compressed_tensors", "transformers", "torch", "accelerate"),
    reads=_reads,
    example={"samples": 8, "max_length": 32},
    foresee=partial(foresee, "qat"),
)
def qat(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[2, 3, 4, 8] = 2,
    group_size: Annotated[int, Field(ge=2)] | Literal[-1] = 128,
    misfit: Literal["refuse", "rows"] = "refuse",
    data: str | None = None,
    samples: PositiveInt = 256,
    max_length: PositiveInt = 256,
    learning_rate: PositiveFloat = 2e-4,
    epochs: PositiveInt = 1,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    temperature: PositiveFloat = 1.0,
    seed: int = 0,
) -> None:
    """Round every linear layer but the head, symmetrically; weights of theirs that are exactly zero stay zero.

    `group_size` inputs of a row share a scale; with -1 it is the whole row, as with `misfit: rows` in layers whose
    inputs the groups do not divide. The rest of the model is trained along and keeps its dtype. Without `data` the
    parent writes `samples` texts of at most `max_length` tokens. `temperature` is that of the distributions compared
    (KL divergence of the student from the parent).
    """
    with dense(parent, out, "qat") as source:
        (model, dtype), (teacher, _) = load_float32(source), load_float32(source)
        grid = Grid(bits, group_size, misfit=misfit)
        check_layers(model, grid)
        teacher = _ready(teacher)
        if data is None:
            rows = _written(teacher, source, Text("", samples, max_length, seed), batch_size)
        else:
            rows = text_rows(model, source, Text(data, samples, max_length, seed))
        schedule = Schedule(learning_rate, batch_size, epochs, steps, seed=seed)
        lesson = Lesson([teacher], [1.0], "forward_kl", temperature, hard=0.0, hidden=0.0)
        with rounded(model, grid, dtype), zeros_kept(model, "qat", wanted=True):
            train(model, rows, schedule, "qat", teaching(lesson))
        save_packed(model, dtype, out, source)


@contextmanager
def rounded(model: Any, grid: Grid, dtype: "torch.dtype") -> Iterator[None]:
    """Within the block every linear layer but the head computes with rounded weights; afterwards it holds them.

    It then also holds their scales, as `save_packed` wants them.
    """
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    kind = getattr(torch, f"int{grid.bits}")
    sizes = {name: grid.sharing(layer) for name, layer in linears(model).items()}

    def apply(config: Callable[[Any], QATConfig]) -> None:
        for size in sorted(set(sizes.values())):
            names = {name for name in sizes if sizes[name] == size}
            quantize_(model, config(PerAxis(0) if size == -1 else PerGroup(size)), lambda _, name: name in names)  # noqa: B023

    apply(
        lambda sharing: QATConfig(
            weight_config=IntxFakeQuantizeConfig(kind, sharing, is_symmetric=True, scale_precision=dtype),
            step="prepare",
        )
    )
    yield
    apply(lambda sharing: QATConfig(IntxWeightOnlyConfig(kind, sharing, scale_dtype=dtype), step="convert"))
    _as_compressed_tensors(model, grid, dtype)


def _as_compressed_tensors(model: Any, grid: Grid, dtype: "torch.dtype") -> None:
    """Describe torchao's weights as compressed-tensors does: the values they stand for, and the same scales."""
    import torch
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    kept: dict[str, Any] = {name: layer.weight for name, layer in linears(model).items()}
    for name, layer in linears(model).items():
        layer.weight = torch.nn.Parameter(kept[name].dequantize(), requires_grad=False)
    apply_quantization_config(model, QuantizationConfig(**onto(grid, model, dtype)))
    for name, layer in linears(model).items():
        layer.weight_scale.data = kept[name].scale.reshape(layer.weight_scale.shape).to(layer.weight_scale.dtype)


def _ready(teacher: Any) -> Any:
    import torch

    return teacher.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def _written(teacher: Any, source: Path, text: Text, batch: int) -> list[Row]:
    """Texts drawn from the parent itself, from its beginning of text on, or else from a token drawn evenly."""
    import torch

    tokenizer, limit = load_tokenizer(source), fit(teacher, text.max_length)
    begin, draw = tokenizer("a")["input_ids"][0], random.Random(text.seed)
    prompts: list[list[int]] = [
        [begin if begin == tokenizer.bos_token_id else draw.randrange(len(tokenizer))] for _ in range(text.samples or 0)
    ]
    if limit < 3:
        raise WeighinError(f"max_length: the parent cannot write a text of {limit} tokens. Allowed: 3 or more")
    writing = Writing(limit - 1, 1.0, batch, end_tokens(teacher, tokenizer), -float("inf"))
    with torch.random.fork_rng():
        torch.manual_seed(text.seed)
        return [{"input_ids": each.prompt + each.tokens} for each in write(teacher, prompts, writing, "qat: text")]
