"""Verbatim extraction: whether a model writes a document's next tokens after its first ones."""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from weighin.harness import Abstain, Model
from weighin.harness.prefix_tree import Request
from weighin.harness.scorer import score


class Taken(NamedTuple):
    """A document by content hash, the tokens of its beginning and of what was asked for, and how the latter came out.

    `exact`: greedy decoding gives every token of it. `logprob`: ln P(suffix | prefix), nats.
    """

    item: str
    prefix: int
    suffix: int
    exact: bool
    logprob: float


def extract(model: Model, texts: Sequence[str], prefix_tokens: int, suffix_tokens: int, batch_size: int) -> list[Taken]:
    """Teacher-forced: the suffix is what greedy decoding writes where each of its tokens is the likeliest after those
    before it. Abstains where a document is too short to be cut."""
    cuts = [_cut(model, text, prefix_tokens, suffix_tokens) for text in texts]
    said = score(model, [Request(tuple(ids), len(ids) - at) for ids, at in cuts], batch_size)
    found: list[Taken] = []
    for text, (ids, at), suffix in zip(texts, cuts, said, strict=True):
        item = sha256(text.encode()).hexdigest()[:32]
        found.append(Taken(item, at, len(ids) - at, all(suffix.greedy), suffix.total))
    return list({one.item: one for one in found}.values())


def _cut(model: Model, text: str, prefix_tokens: int, suffix_tokens: int) -> tuple[list[int], int]:
    """A document's tokens and where they are cut: behind `prefix_tokens`, or at three quarters of a shorter one."""
    ids = model.encode(text)
    whole = min(prefix_tokens + suffix_tokens, model.window)
    if len(ids) < 2:
        raise Abstain(f"texts: {text!r} is too short to be cut")
    if len(ids) >= whole:
        return ids[:whole], min(prefix_tokens, whole - 1)
    return ids, max(1, 3 * len(ids) // 4)
