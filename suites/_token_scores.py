"""What a model makes of texts, token by token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from weighin.harness import Model
from weighin.suites._membership import Floats

LEAST_VARIANCE = 1e-6
"""Below it a prediction is certain, and its standard deviation nothing but rounding."""


class Tokens(NamedTuple):
    """Of each token but the first, which nothing predicts: its log-probability, nats, and the same standardised."""

    t: Floats
    z: Floats


def score(model: Model, rows: Sequence[Sequence[int]], batch_size: int, name: str = "texts") -> list[Tokens]:
    """Tokens of each row of ids, in the order of the rows; a row of one token gives empty arrays.

    z = (t − μ) / σ, with μ = Σ p log p and σ² = Σ p (log p − μ)² over the vocabulary (Zhang et al., arXiv 2404.02936,
    equation 3), in float32.
    """
    from tqdm import tqdm

    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # of like length, so that little is padded
    found: dict[int, Tokens] = {}
    for start in tqdm(range(0, len(order), batch_size), desc=name):
        chosen = order[start : start + batch_size]
        said = model.logprobs([list(rows[i]) for i in chosen])
        for place, i in enumerate(chosen):
            found[i] = _tokens(said[place], rows[i])
    return [found[i] for i in range(len(rows))]


def _tokens(said: object, row: Sequence[int]) -> Tokens:
    import torch

    assert isinstance(said, torch.Tensor)
    likely = said[: len(row) - 1].clamp(min=-1e4)  # a token a model rules out may have -inf, and 0 · inf is no number
    t = likely.gather(1, torch.tensor(row[1:], device=likely.device).view(-1, 1).long())[:, 0]
    p = likely.exp()
    mean = (p * likely).sum(-1)
    variance = (p * (likely - mean[:, None]) ** 2).sum(-1).clamp(min=LEAST_VARIANCE)
    z = (t - mean) / variance.sqrt()
    return Tokens(*(np.asarray(values.double().cpu().numpy(), np.float64) for values in (t, z)))
