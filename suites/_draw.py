"""Answers drawn from a model's own distribution, and how far they agree."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from weighin.harness import Model
from weighin.suites._score import encode


def drawn(model: Model, prompt: str, *, draws: int, max_new_tokens: int, seed: int, lines: int = 1) -> list[str] | None:
    """The first `lines` lines of `draws` continuations at temperature 1; None where they do not fit the window.

    Tokens are drawn from `logprobs`, whatever way the variant is served: it is the model's certainty that is asked for.
    The draws depend on the seed and the prompt alone.
    """
    import torch

    start = encode(model, prompt)
    if len(start) + max_new_tokens > model.window:
        return None
    source = torch.Generator().manual_seed(int.from_bytes(sha256(f"{seed}:{prompt}".encode()).digest()[:7], "big"))
    rows, texts, open_ = [list(start) for _ in range(draws)], [""] * draws, list(range(draws))
    for _ in range(max_new_tokens):
        said = model.logprobs([rows[i] for i in open_])[:, len(rows[open_[0]]) - 1].exp().double().cpu()
        for i, token in zip(open_, torch.multinomial(said, 1, generator=source)[:, 0].tolist(), strict=True):
            rows[i].append(token)
            texts[i] = model.tokenizer.decode(rows[i][len(start) :], skip_special_tokens=True)
        open_ = [
            i for i in open_ if rows[i][-1] != model.tokenizer.eos_token_id and texts[i].lstrip().count("\n") < lines
        ]
        if not open_:
            break
    return ["\n".join(text.strip().split("\n")[:lines]).strip() for text in texts]


def agreement(texts: Sequence[str]) -> float:
    """The share of pairs that are equal; it estimates the sum of squared probabilities without bias."""
    n = len(texts)
    return sum(count * (count - 1) for count in Counter(texts).values()) / (n * (n - 1))
