"""Verbatim extraction: whether a model writes a document's next tokens after its first ones."""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from weighin.harness import Abstain, Model


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
    from tqdm import tqdm

    found: list[Taken] = []
    cuts = [_cut(model, text, prefix_tokens, suffix_tokens) for text in texts]
    for start in tqdm(range(0, len(cuts), batch_size), desc="extraction"):
        part = cuts[start : start + batch_size]
        said = model.logprobs([ids for ids, _ in part])
        for place, (ids, at) in enumerate(part):
            likely = said[place, at - 1 : len(ids) - 1]
            best, asked = likely.argmax(-1).tolist(), ids[at:]
            logprob = sum(float(likely[i, token]) for i, token in enumerate(asked))
            item = sha256(texts[start + place].encode()).hexdigest()[:32]
            found.append(Taken(item, at, len(asked), best == asked, logprob))
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
