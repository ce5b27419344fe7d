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
            self.arrivals.extend([time.perf_counter() - self.began] * value.numel())
        self._prompt = False

    def end(self) -> None:
        """Nothing is left to flush."""


def arrivals(model: Model, ids: list[int], new_tokens: int) -> list[float]:
    """Generate exactly `new_tokens` tokens, greedily, the way the variant is served.

    Returns the seconds from the call at which each token arrived. Abstains when they do not fit the window.
    """
    import torch

    if len(ids) + new_tokens > model.window:
        raise Abstain(f"{len(ids)} + {new_tokens} tokens do not fit the model's window of {model.window}")
    prompt = torch.tensor([ids], device=model.module.device)
    with torch.inference_mode():
        clock = _Clock()
        model.module.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=model.tokenizer.pad_token_id,
            streamer=clock,
            **model.serving,
        )
    return clock.arrivals
