"""How likely a model finds a text: log-likelihoods of continuations, as the suites that compare sentences share them.

A continuation is what `encode(context + continuation)` adds to `encode(context)`, as lm-eval has it: spaces at the end
of a context belong to its continuation. A text without a context is scored from the token that begins a document.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from weighin.harness import Abstain, Model, WeighinError
from weighin.harness.prefix_tree import Request
from weighin.harness.scorer import score

Normalise = Literal["none", "bytes"]
"""What a continuation's log-likelihood is divided by before continuations are compared: nothing (lm-eval's `acc`), or
its length in UTF-8 bytes (`acc_norm`)."""


class Likelihood(NamedTuple):
    """What a continuation's tokens are and the log-probability of each, nats."""

    ids: tuple[int, ...]
    each: tuple[float, ...]

    @property
    def total(self) -> float:
        """ln P(continuation | context), nats."""
        return sum(self.each)

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.total / len(self.each)


def likelihoods(model: Model, pairs: Sequence[tuple[str, str]], batch_size: int = 16) -> list[Likelihood]:
    """Score (context, continuation) pairs in their order. Abstains where a continuation outgrows the model's window."""
    rows = [Request(*_row(model, *pair)) for pair in pairs]
    found = score(model, rows, batch_size)
    return [Likelihood(row.ids[-row.own :], each.logprobs) for row, each in zip(rows, found, strict=True)]


def normalised(likelihood: Likelihood, continuation: str, how: Normalise) -> float:
    """A log-likelihood made comparable: nats, or nats a byte of the continuation without the space before it."""
    return likelihood.total / len(continuation.strip().encode()) if how == "bytes" else likelihood.total


def _row(model: Model, context: str, continuation: str) -> tuple[tuple[int, ...], int]:
    """Token ids of both, the context's beginning cut off where they do not fit, and how many are the continuation's."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before, whole = encode(model, context), encode(model, context + continuation)
    if not context and (not before or whole[: len(before)] != before):
        before = _beginning(model)
        whole = before + whole
    own = len(whole) - len(before)
    if own < 1:
        raise WeighinError(f"nothing is left to score of {continuation!r} after {context[-40:]!r}")
    if own > model.window:
        raise Abstain(f"a text of {own} tokens does not fit the model's window of {model.window}")
    return tuple(whole[-(model.window + 1) :]), own


def encode(model: Model, text: str) -> list[int]:
    """Token ids of a text that goes on: without the EOS that some tokenizers put behind every text."""
    ids, end = model.encode(text), model.tokenizer.eos_token_id
    closes = len(ids) > 1 and ids[-1] == end and not text.endswith(str(model.tokenizer.eos_token))
    return ids[:-1] if closes else ids


def _beginning(model: Model) -> list[int]:
    """The token a document begins with: BOS, or EOS where there is none."""
    tokenizer = model.tokenizer
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise Abstain("its tokenizer has neither BOS nor EOS: a text without a context cannot be scored")
    return [int(token)]
