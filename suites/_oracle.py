"""An oracle: a model whose probabilities are known exactly, because they were written down; to try instruments on.

It stands behind the `Model` protocol like any other: suites score it and generate with it by their own code, with the
tokenizer of the reference models, and lm-eval takes its module for a transformers model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from weighin.harness import Checkpoint, Model, Runtime
from weighin.harness.reference import reference_path
from weighin.harness.serving import Serving

if TYPE_CHECKING:
    import torch

Beliefs = Mapping[str, Mapping[str, float]]
"""After a text, each of some continuations with its probability; what they leave of 1 goes to all other tokens."""


@cache
def tokenizer() -> Any:
    """That of the reference models."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(reference_path("base"))


@dataclass
class Oracle:
    """Believes what it is told: P(continuation | text) is exactly as given, to float32.

    A text that none of its beliefs begins with is continued by every token alike. A continuation must not be the
    beginning of another after the same text. ValueError where it merges with the end of its text, and where the
    probabilities after a text are more than 1. `answers` is what it writes after a prompt; after any other, nothing.
    """

    beliefs: Beliefs = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    window: int = 512

    def __post_init__(self) -> None:
        self.checkpoint = Checkpoint(reference_path("base"), "oracle")
        self.tokenizer = tokenizer()
        self.served, self.draft = Serving(), None
        self.endpoint: Any = None
        self.rss_before: int | None = None
        self.runtime: Runtime | None = None
        self.serving: Mapping[str, Any] = {}
        self.begins: set[tuple[int, ...]] = set()
        self.next: dict[tuple[int, ...], dict[int, float]] = {}
        for text, continuations in self.beliefs.items():
            self._believe(text, continuations)
        self.module = _module(self)

    def _believe(self, text: str, continuations: Mapping[str, float]) -> None:
        before = tuple(self.encode(text))
        if sum(continuations.values()) > 1 + 1e-9:
            raise ValueError(f"{text!r}: the probabilities of its continuations are more than 1")
        self.begins.add(before)
        for continuation, probability in continuations.items():
            whole = tuple(self.encode(text + continuation))
            if whole[: len(before)] != before or len(whole) == len(before):
                raise ValueError(f"{continuation!r} merges with the end of {text!r}")
            for place in range(len(before), len(whole)):
                shares = self.next.setdefault(whole[:place], {})
                shares[whole[place]] = shares.get(whole[place], 0.0) + probability

    def encode(self, text: str) -> list[int]:
        """Token ids, BOS first."""
        return list(self.tokenizer(text).input_ids)

    def after(self, prefix: tuple[int, ...]) -> "torch.Tensor":
        """Log-probabilities of the next token, nats, float64 (vocabulary)."""
        import torch

        size = len(self.tokenizer)
        masses = self.next.get(prefix)
        if not masses:
            return torch.full((size,), -math.log(size), dtype=torch.float64)
        # Where a continuation begins the beliefs may leave something of 1; inside they are shares of its mass.
        whole = 1.0 if prefix in self.begins else sum(masses.values())
        rest = max(1.0 - sum(masses.values()) / whole, 0.0)
        found = torch.full((size,), math.log(max(rest, 1e-30) / (size - len(masses))), dtype=torch.float64)
        for token, mass in masses.items():
            found[token] = math.log(max(mass / whole, 1e-30))
        return found

    def logprobs(self, batch: list[list[int]]) -> Any:
        """Next-token log-probabilities, nats: float32 (row, position, vocabulary), right-padded."""
        import torch

        width = max(map(len, batch))
        found = torch.zeros(len(batch), width, len(self.tokenizer), dtype=torch.float64)
        for number, row in enumerate(batch):
            for place in range(len(row)):
                found[number, place] = self.after(tuple(row[: place + 1]))
        return found.float()

    def generate(self, prompts: list[str], *, max_new_tokens: int) -> list[str]:
        """The answers it was given, cut to `max_new_tokens`."""
        texts = [self.answers.get(prompt, "") for prompt in prompts]
        cut = [self.tokenizer(text, add_special_tokens=False).input_ids[:max_new_tokens] for text in texts]
        return [self.tokenizer.decode(ids) for ids in cut]

    def relative(self, which: Literal["parent", "root"]) -> Model | None:
        """None: an oracle descends from nobody."""
        return None

    def weight_bytes(self) -> int:
        """It has no weights."""
        return 0


def _module(oracle: Oracle) -> Any:
    """The oracle as the `transformers` module that lm-eval scores."""
    import torch

    class Module(torch.nn.Module):
        device = torch.device("cpu")
        dtype = torch.float32
        config = SimpleNamespace(
            model_type="llama", max_position_embeddings=oracle.window, vocab_size=len(oracle.tokenizer)
        )

        def tie_weights(self) -> None:
            """There are none."""

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return SimpleNamespace(logits=oracle.logprobs(input_ids.tolist()))

    return Module()
