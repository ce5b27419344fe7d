"""Text by lm-eval's own generation, which reads what a task's prompts begin with, few-shot examples mostly, once.

Its batches, stop strings and limits stay lm-eval's. The common beginning goes to the front of a batch, before the
padding; a token's position counts only what is not padding, so every answer is that of its own prompt.
"""

import copy
from collections.abc import Sequence
from typing import Any

LEAST = 16
"""Tokens that a common beginning must have to be worth its copies."""


def share(lm: Any) -> None:
    """Make lm-eval's Hugging Face model `lm` read common beginnings once, where its attention has no window."""
    config = lm.model.config.get_text_config()
    if getattr(config, "sliding_window", None):  # a window counts padding, which would then stand within it
        return
    generate_until, generate = lm.generate_until, lm._model_generate
    headers: list[tuple[int, ...]] = []
    read: dict[tuple[int, ...], Any] = {}

    def all_of_them(requests: Sequence[Any], **options: Any) -> Any:
        headers[:] = _headers(lm, requests)
        try:
            return generate_until(requests, **options)
        finally:
            read.clear()

    def batch(context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        header = _header_of(context, options.get("attention_mask"), headers)
        if header:
            if header not in read:
                read[header] = _read(lm.model, header, context.device)
            cache = copy.deepcopy(read[header])
            cache.batch_repeat_interleave(len(context))
            context, options["attention_mask"] = _in_front(context, options["attention_mask"], len(header))
            options["past_key_values"] = cache
        return generate(context, max_length, stop, **options)

    lm.generate_until, lm._model_generate = all_of_them, batch


def _headers(lm: Any, requests: Sequence[Any]) -> list[tuple[int, ...]]:
    """What all prompts of a task begin with, the longest first; at least one token of a prompt is left to be read."""
    by_task: dict[str, tuple[int, ...]] = {}
    several: set[str] = set()
    for request in requests:
        task, ids = str(request.task_name), tuple(lm.tok_encode(request.args[0]))[:-1]
        if task in by_task:
            several.add(task)
        shared = by_task.setdefault(task, ids)
        apart = (at for at, (a, b) in enumerate(zip(shared, ids, strict=False)) if a != b)
        by_task[task] = shared[: next(apart, min(len(shared), len(ids)))]
    return sorted({ids for task, ids in by_task.items() if task in several and len(ids) >= LEAST}, key=len)[::-1]


def _header_of(context: Any, mask: Any, headers: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest header that every row of a left-padded batch begins with, and goes on behind; () without one."""
    if mask is None:
        return ()
    rows = [tuple(ids[kept.bool()].tolist()) for ids, kept in zip(context, mask, strict=True)]
    for header in headers:
        if all(len(row) > len(header) and row[: len(header)] == header for row in rows):
            return header
    return ()


def _read(module: Any, header: tuple[int, ...], device: Any) -> Any:
    """Keys and values of a header, one row."""
    import torch
    from transformers import DynamicCache

    with torch.inference_mode():
        cache = DynamicCache(config=module.config)
        ids = torch.tensor([header], device=device)
        return module.base_model(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values


def _in_front(context: Any, mask: Any, count: int) -> tuple[Any, Any]:
    """A left-padded batch whose first `count` real tokens stand before the padding, and its mask."""
    import torch

    width = context.shape[1]
    starts = width - mask.sum(1, keepdim=True)
    columns = torch.arange(width, device=context.device).expand(len(context), -1)
    behind = torch.where(columns < count + starts, columns - count, columns)
    moved = torch.where(columns < count, columns + starts, behind)
    return context.gather(1, moved), mask.gather(1, moved)
