"""What must hold of a model before and after its weights are trained."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from weighin.adapters._hf import layers
from weighin.harness import WeighinError

log = logging.getLogger(__name__)


@contextmanager
def trained(model: Any, dtype: Any, name: str) -> Iterator[None]:
    """Within the block the model is trained: its weights change, and nothing else of it does.

    Raises WeighinError where not a hundredth of the change outlives the rounding to `dtype`, which is what the
    checkpoint is kept in: many small steps may all be lost between two numbers of 16 bits.
    """
    before = {key: weight.detach().to(dtype, copy=True) for key, weight in model.named_parameters()}
    config = copy.deepcopy(model.config)
    yield
    model.config = config  # trainers write their padding token and their want of a cache into it
    left = survival(before, dict(model.named_parameters()), dtype)
    log.info("%s: %.0f%% of the change outlives the rounding to %s", name, 100 * left, dtype)
    if left < 0.01:
        raise WeighinError(
            f"{name}: of the change of the weights {left:.2%} outlives the rounding to {dtype}, which the parent is "
            "kept in. Raise learning_rate or steps"
        )


def survival(before: Mapping[str, Any], after: Mapping[str, Any], dtype: Any) -> float:
    """Share of the change from `before` to `after` that is left once `after` is rounded to `dtype`; 0 for no change.

    The projection of the change that is left on the one that was meant, both taken as one long vector.
    """
    met = meant = 0.0
    for key, weight in after.items():
        old, new = before[key].double(), weight.detach().double()
        change = new - old
        met += float((change * (new.to(dtype).double() - old)).sum())
        meant += float(change.square().sum())
    return met / meant if meant else 0.0


@contextmanager
def zeros_kept(model: Any, name: str, wanted: bool) -> Iterator[None]:
    """Within the block, weights of layers that are exactly zero take no part in training.

    Their gradient is zero, so AdamW leaves them where they are, and the cut of the gradient's norm does not count
    them. Raises WeighinError if one moved.
    """
    weights: dict[str, Any] = {key: layer.weight for key, layer in layers(model).items()} if wanted else {}
    zeros = {key: weight.detach() == 0 for key, weight in weights.items()}
    hooks = [weights[key].register_hook(_masking(mask)) for key, mask in zeros.items() if mask.any()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    lost = [key for key, mask in zeros.items() if weights[key].detach()[mask].any()]
    if lost:
        raise WeighinError(f"{name}: weights that were zero are not any more, in {', '.join(lost)}")


def _masking(mask: Any) -> Any:
    return lambda gradient: gradient.masked_fill(mask.to(gradient.device), 0)
