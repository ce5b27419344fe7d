"""Requests to a model behind a server, timed by the pieces that its stream brings: what a client sees, network and all.

A server may put several tokens into a piece, so tokens are those it counts, and gaps between tokens are told only where
there are as many pieces.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from weighin.harness import Abstain, Model
from weighin.suites._generate import SEED_TEXT


@dataclass
class Streams:
    """A server that is asked for streams; it remembers what its pieces were."""

    model: Any
    together: bool = False
    """Whether a request had fewer pieces than tokens."""
    counted: bool = True
    """Whether the server counts its tokens; where it does not, a piece counts as one."""

    def arrivals(self, prompt: str, new_tokens: int) -> list[float]:
        """Seconds from the call at which each token arrived; those that no piece shows count with the last one."""
        pieces, tokens = self.model.stream(prompt, new_tokens)
        self.counted = self.counted and tokens is not None
        hidden = (tokens or len(pieces)) - len(pieces)
        self.together = self.together or hidden > 1  # the token that ends a text is none to be seen
        return [*pieces, *[pieces[-1]] * max(0, hidden)]

    def batch(self, prompts: list[str], new_tokens: int) -> tuple[float, int]:
        """Seconds until all of the requests, begun at once as far as the server may be asked, are answered; tokens."""
        began = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            found = list(pool.map(lambda prompt: self.arrivals(prompt, new_tokens), prompts))
        return time.perf_counter() - began, sum(map(len, found))

    def said(self) -> dict[str, Any]:
        """What a reader of the figures must know."""
        tokens = "as the server counts them" if self.counted else "pieces of the stream"
        return {"behind": "a server", "tokens": tokens, "asked_again": self.model.client.retried}


def prompt_text(model: Model, tokens: int) -> str:
    """A prompt of so many tokens; of about as many words where the tokenizer is not known. Abstains where too long."""
    if tokens >= model.window:
        raise Abstain(f"prompt_tokens: {tokens} tokens do not fit the model's window of {model.window}")
    words = (SEED_TEXT * tokens).split()
    try:
        encoder = model.tokenizer
    except Abstain:
        return " ".join(words[:tokens])
    return str(encoder.decode(encoder(SEED_TEXT * tokens, add_special_tokens=False).input_ids[:tokens]))
