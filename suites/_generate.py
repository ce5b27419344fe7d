"""Generation of a fixed number of tokens, as the suites that time it and weigh it share it."""

import time
from typing import Any

from weighin.harness import Abstain, Model

SEED_TEXT = "The keeper of the mill counts the boats on the river and writes a line for every one that comes home. "


def prompt_ids(model: Model, tokens: int) -> list[int]:
    """A prompt of exactly so many tokens, the same for every variant of a tokenizer. Abstains when it does not fit."""
    if tokens >= model.window:
        raise Abstain(f"prompt_tokens: {tokens} tokens do not fit the model's window of {model.window}")
    text = SEED_TEXT
    while len(ids := model.encode(text)) < tokens:
        text += SEED_TEXT
    return ids[:tokens]


class _Clock:
    """What `generate` calls with each token as it is made; the prompt comes first and is no arrival."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.arrivals: list[float] = []
        self._prompt = True

    def put(self, value: Any) -> None:
        if not self._prompt:
            # A step gives one token to each sequence (sequence,), assisted generation several to one (1, token).
            tokens = value.shape[1] if value.dim() == 2 else 1
            self.arrivals.extend([time.perf_counter() - self.began] * tokens)
        self._prompt = False

    def end(self) -> None:
        """Nothing is left to flush."""


def arrivals(model: Model, ids: list[int], new_tokens: int) -> list[float]:
    """Generate exactly `new_tokens` tokens the way the variant is served: greedily unless it says otherwise.

    Returns the seconds from the call at which each token arrived: all at the end where beams are searched. Abstains
    when they do not fit the window.
    """
    beams = model.serving.get("num_beams", 1) > 1
    clock = _Clock()
    _generate(model, [ids], new_tokens, None if beams else clock)
    return [time.perf_counter() - clock.began] * new_tokens if beams else clock.arrivals


def batch_seconds(model: Model, rows: list[list[int]], new_tokens: int) -> float:
    """Seconds to generate exactly `new_tokens` tokens for each of the prompts, which are equally long, at once.

    One after the other where the variant is served by assisted generation, which takes no batches.
    """
    groups = [[row] for row in rows] if model.served.assisted else [rows]
    began = time.perf_counter()
    for group in groups:
        _generate(model, group, new_tokens)
    return time.perf_counter() - began


def _generate(model: Model, rows: list[list[int]], new_tokens: int, clock: _Clock | None = None) -> None:
    import torch

    if len(rows[0]) + new_tokens > model.window:
        raise Abstain(f"{len(rows[0])} + {new_tokens} tokens do not fit the model's window of {model.window}")
    prompts = torch.tensor(rows, device=model.module.device)
    with torch.inference_mode():
        if clock is not None:
            clock.began = time.perf_counter()  # making the tensor is no part of a request
        model.module.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=model.tokenizer.pad_token_id,
            streamer=clock,
            **model.serving,
        )
