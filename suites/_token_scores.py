"""What a model makes of texts, token by token."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from weighin.harness import Model
from weighin.harness.prefix_tree import Request, build
from weighin.harness.scorer import predictions
from weighin.suites._membership import Floats

LEAST_VARIANCE = 1e-6
"""Below it a prediction is certain, and its standard deviation nothing but rounding."""


class Tokens(NamedTuple):
    """Of each token but the first, which nothing predicts: its log-probability, nats, and the same standardised."""

    t: Floats
    z: Floats


def score(model: Model, rows: Sequence[Sequence[int]], batch_size: int) -> list[Tokens]:
    """Tokens of each row of ids, in the order of the rows; a row of one token gives empty arrays.

    z = (t − μ) / σ, with μ = Σ p log p and σ² = Σ p (log p − μ)² over the vocabulary (Zhang et al., arXiv 2404.02936,
    equation 3), in float32.
    """
    tree = build([Request(tuple(row), len(row) - 1) for row in rows if len(row) > 1])
    t, z = np.zeros(len(tree.wanted)), np.zeros(len(tree.wanted))
    for which, at, (said,) in predictions([model], tree, batch_size):
        t[which], z[which] = _tokens(said, at, tree.targets[which])
    scored = iter(zip(tree.split(t), tree.split(z), strict=True))
    return [Tokens(*next(scored)) if len(row) > 1 else Tokens(np.zeros(0), np.zeros(0)) for row in rows]


def _tokens(said: Any, rows: Any, targets: Any) -> tuple[Floats, Floats]:
    """t and z of some tokens, from the rows of predictions (rows, vocabulary) that tell of them."""
    import torch

    likely = said.clamp(min=-1e4)  # a token a model rules out may have -inf, and 0 · inf is no number
    t = likely[rows, torch.from_numpy(targets).to(likely.device)]
    p = likely.exp()
    mean = (p * likely).sum(-1)
    variance = (p * (likely - mean[:, None]) ** 2).sum(-1).clamp(min=LEAST_VARIANCE)
    z = (t - mean[rows]) / variance.sqrt()[rows]
    return t.double().cpu().numpy(), z.double().cpu().numpy()
