"""LoRA: train a low-rank change of every linear layer on text, and merge it into the weights or keep it beside them.

Library: peft (`LoraConfig`), with a plain training loop: AdamW, the rate falling linearly to zero, gradients cut to
norm 1, everything in float32; the result goes back to the parent's dtype.
Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.

Costs: a forward and a backward pass over the data per epoch, and 4 bytes a parameter for the frozen float32 weights.
Buys: a tuned model. Merged it is as large and as fast as its parent. Kept as an adapter the file holds only the
change (it refers to the parent's directory, which must stay), and every forward pays for the extra products.
"""

import logging
import math
import random
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._hf import copy_companions, dense, fit, is_adapter, load_float32, load_tokenizer, save
from weighin.harness import Checkpoint, WeighinError, stage
from weighin.harness.text import documents, encode, text_files

log = logging.getLogger(__name__)


@stage(
    needs=("peft", "transformers", "torch"),
    reads=text_files,
    example={"samples": 8, "max_length": 64},
)
def lora(
    parent: Checkpoint,
    out: Path,
    *,
    data: str = "reference:tune",
    samples: PositiveInt | None = None,
    max_length: PositiveInt = 256,
    rank: PositiveInt = 8,
    alpha: PositiveInt = 16,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    target: str | list[str] = "all-linear",
    learning_rate: PositiveFloat = 1e-3,
    epochs: PositiveInt = 1,
    batch_size: PositiveInt = 8,
    merge: bool = True,
    seed: int = 0,
) -> None:
    """Tune on the plain next-token objective. `target` names modules; `all-linear` is all but the head."""
    if not merge and is_adapter(parent.path):
        raise WeighinError("lora.merge: the parent is an adapter, and one cannot stand on another. Allowed: true")
    with dense(parent, out, "lora") as source:
        import torch

        tokenizer, (base, dtype) = load_tokenizer(source), load_float32(source)
        texts, limit = documents(data, samples=samples, seed=seed), fit(base, max_length)
        rows = _ended(encode(tokenizer, texts, limit), tokenizer, limit)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            model = _attach(base.to(device), (rank, alpha, dropout), target)
            _train(model, _batches(rows, batch_size, epochs, seed), learning_rate)
        if merge:
            save(model.merge_and_unload().to("cpu", dtype), out, source)
        else:
            _save_adapter(model.to("cpu", dtype), out, parent.path)


def _ended(rows: list[list[int]], tokenizer: Any, limit: int) -> list[list[int]]:
    """Close each document that was not cut, so that the model learns where to stop."""
    end = tokenizer.eos_token_id
    return [row if end is None or row[-1] == end or len(row) >= limit else [*row, end] for row in rows]


def _attach(base: Any, shape: tuple[int, int, float], target: str | list[str]) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    rank, alpha, dropout = shape
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target, task_type=TaskType.CAUSAL_LM
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise WeighinError(f"lora.target: {error}") from error


def _batches(rows: list[list[int]], size: int, epochs: int, seed: int) -> list[list[list[int]]]:
    draw, batches = random.Random(seed), []
    for _ in range(epochs):
        order = draw.sample(rows, len(rows))
        batches += [order[i : i + size] for i in range(0, len(order), size)]
    return batches


def _train(model: Any, batches: list[list[list[int]]], learning_rate: float) -> None:
    """Train in place; WeighinError as soon as the loss is not finite."""
    import torch
    from tqdm import tqdm

    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=len(batches))
    model.train()
    bar = tqdm(batches, desc="lora", unit="step")
    for step, batch in enumerate(bar, start=1):
        loss = model(**_padded(batch, model.device)).loss
        value = loss.item()
        if not math.isfinite(value):
            raise WeighinError(
                f"lora: the loss is {value} at step {step} of {len(batches)}. "
                f"Lower learning_rate (now {learning_rate:g}) or check the parent's weights"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        fall.step()
        bar.set_postfix(loss=f"{value:.4f}")
        if step == 1 or step == len(batches) or step % 50 == 0:
            log.info("step %d of %d: loss %.4f", step, len(batches), value)
    if not all(w.isfinite().all() for w in weights):
        raise WeighinError(
            f"lora: the last step left weights that are not finite. Lower learning_rate ({learning_rate:g})"
        )
    model.eval()


def _padded(batch: list[list[int]], device: Any) -> dict[str, Any]:
    """Rows filled up on the right; filling is neither attended to nor learnt."""
    import torch

    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def _save_adapter(model: Any, out: Path, base: Path) -> None:
    config = model.peft_config["default"]
    config.base_model_name_or_path = str(base.resolve())
    config.target_modules = sorted(config.target_modules)  # a set, whose order changes from process to process
    # Asked to decide by itself, the library looks the base up on the hub.
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # an empty model card
    copy_companions(base, out)
