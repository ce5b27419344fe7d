"""Train a causal language model on the transformers Trainer: rows of tokens in, a loss function, and progress.

AdamW, gradients cut to norm 1, the rate falling to zero, everything in float32. A loss that is not finite stops the
training with an error that says at which step. Nothing is saved on the way: a stage is made whole or not at all.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from weighin.adapters._hf import fit, load_tokenizer
from weighin.harness import WeighinError
from weighin.harness.text import documents, encode

log = logging.getLogger(__name__)

WHOLE = 2**31 - 1
"""A length at which no document is cut, tokens."""
Row = Mapping[str, list[int]]
"""One example: `input_ids`, and `labels` of the same length where not every token is learnt (-100: not learnt)."""
Batch = dict[str, Any]
"""Rows padded on the right, as int64 tensors (row, position): `input_ids`, `attention_mask`, `labels`."""
Loss = Callable[[Any, Batch], Any]
"""The scalar loss, nats, of a model on a batch."""


class Text(NamedTuple):
    """Which documents a stage trains on, and how long a row is at most, tokens."""

    data: str
    samples: int | None
    max_length: int
    seed: int


class Schedule(NamedTuple):
    """How long and how fast. `steps`, where given, overrides `epochs`; `warmup` is a share of the steps."""

    learning_rate: float
    batch_size: int
    epochs: int = 1
    steps: int | None = None
    warmup: float = 0.0
    decay: float = 0.0
    curve: Literal["linear", "cosine"] = "linear"
    seed: int = 0


def text_rows(model: Any, source: Path, text: Text) -> list[Row]:
    """One row a document, closed by the end token where it was not cut, so that a model learns where to stop."""
    tokenizer, limit = load_tokenizer(source), fit(model, text.max_length)
    found = encode(tokenizer, documents(text.data, samples=text.samples, seed=text.seed), limit)
    end = tokenizer.eos_token_id
    return [{"input_ids": row if end is None or row[-1] == end or len(row) >= limit else [*row, end]} for row in found]


def packed_rows(model: Any, source: Path, text: Text) -> list[Row]:
    """The same documents uncut, one after the other, each closed by the end token, in rows of `max_length` tokens.

    Rows are as long as the model's window where that is shorter; the ragged tail is dropped.
    """
    tokenizer = load_tokenizer(source)
    found = encode(tokenizer, documents(text.data, samples=text.samples, seed=text.seed), WHOLE)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return packed([{"input_ids": row + (end if row[-1:] != end else [])} for row in found], fit(model, text.max_length))


def packed(rows: Sequence[Row], length: int) -> list[Row]:
    """The same tokens in rows of exactly `length`; the ragged tail is dropped. Raises WeighinError if that is all."""
    stream = [token for row in rows for token in row["input_ids"]]
    cut: list[Row] = [{"input_ids": stream[i : i + length]} for i in range(0, len(stream) - length + 1, length)]
    if not cut:
        raise WeighinError(f"max_length: {len(stream)} tokens of text do not fill one row of {length}")
    return cut


def next_token(model: Any, batch: Batch) -> Any:
    """Cross-entropy of the next token, mean over the tokens that are learnt."""
    return model(**batch).loss


def train(model: Any, rows: Sequence[Row], schedule: Schedule, name: str, loss: Loss = next_token) -> None:
    """Train in place, on an accelerator where there is one; the model ends on the CPU, ready for use.

    Raises WeighinError as soon as the loss is not finite. Equal seeds give equal weights on one machine.
    """
    import torch
    from tqdm import tqdm

    weights = [p for p in model.parameters() if p.requires_grad]
    cached = getattr(model.config, "use_cache", True)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        trainer = _trainer(model, rows, schedule, folder)
        bar = tqdm(total=_steps(rows, schedule), desc=name, unit="step")

        def watched(model: Any, batch: Batch, **_: Any) -> Any:
            value = loss(model, batch)
            watch(bar, value.item(), name, schedule)
            return value

        trainer.compute_loss = watched
        trainer.train()
        bar.close()
    model.config.use_cache = cached  # the library turns it off for good, and generation from then on is slow
    model.to("cpu").eval()
    if not all(weight.isfinite().all() for weight in weights):
        raise WeighinError(
            f"{name}: the last step left weights that are not finite. Lower learning_rate ({schedule.learning_rate:g})"
        )


def _steps(rows: Sequence[Row], schedule: Schedule) -> int:
    return schedule.steps or schedule.epochs * math.ceil(len(rows) / schedule.batch_size)


def watch(bar: Any, value: float, name: str, schedule: Schedule) -> None:
    """Note a step's loss on the bar and in the log. Raises WeighinError where it is not finite."""
    step = bar.n + 1
    if not math.isfinite(value):
        raise WeighinError(
            f"{name}: the loss is {value} at step {step} of {bar.total}. "
            f"Lower learning_rate (now {schedule.learning_rate:g}) or check the parent's weights"
        )
    bar.update()
    bar.set_postfix(loss=f"{value:.4f}")
    if step == 1 or step == bar.total or step % 50 == 0:
        log.info("step %d of %d: loss %.4f", step, bar.total, value)


def settings(schedule: Schedule, steps: int, folder: str) -> dict[str, Any]:
    """What every trainer here is told: the schedule, and to write, send and print nothing."""
    import torch

    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": schedule.batch_size,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.curve,
        "warmup_steps": round(schedule.warmup * steps),
        "weight_decay": schedule.decay,
        "max_grad_norm": 1.0,
        "seed": schedule.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "disable_tqdm": True,
        "report_to": [],
        "save_strategy": "no",
        "dataloader_pin_memory": False,
    }


def _trainer(model: Any, rows: Sequence[Row], schedule: Schedule, folder: str) -> Any:
    from transformers import PrinterCallback, Trainer, TrainingArguments

    given = settings(schedule, _steps(rows, schedule), folder)
    arguments = TrainingArguments(**given, remove_unused_columns=False, logging_strategy="no")
    trainer = Trainer(model=model, args=arguments, train_dataset=list(rows), data_collator=padded)
    trainer.remove_callback(PrinterCallback)
    return trainer


def padded(rows: Sequence[Row]) -> Batch:
    """Rows filled up on the right; filling is neither attended to nor learnt."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[i, :size] = torch.tensor(row["input_ids"])
        mask[i, :size] = 1
        labels[i, :size] = torch.tensor(row.get("labels", row["input_ids"]))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
