"""Run a trainer of trl: nothing written, nothing sent, and its loss watched."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from weighin.adapters._train import Schedule, settings, watch
from weighin.harness import WeighinError

Make = Callable[[Mapping[str, Any]], Any]
"""Makes a trainer from the settings that all of trl's configurations share."""
LOGGED: Mapping[str, Any] = {"logging_strategy": "steps", "logging_steps": 1, "gradient_checkpointing": False}


def library() -> Any:
    """trl itself; it makes its names when they are asked for, out of type checkers' sight."""
    import trl

    return trl


def run(model: Any, make: Make, schedule: Schedule, steps: int, name: str) -> list[Mapping[str, float]]:
    """Train `model` in place with the trainer that `make` gives; what the trainer logged, a mapping a step.

    Raises WeighinError as soon as the loss is not finite, and where weights are not in the end.
    """
    import torch
    from tqdm import tqdm
    from transformers import PrinterCallback

    cached = getattr(model.config, "use_cache", True)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), _alone():
        trainer = make({**settings(schedule, steps, folder), **LOGGED})
        trainer.remove_callback(PrinterCallback)
        if not len(trainer.train_dataset):
            raise WeighinError(f"{name}.max_length: no row is left that fits; the prompts alone are longer")
        step, bar = trainer.training_step, tqdm(total=steps, desc=name, unit="step")

        def watched(*args: Any, **kwargs: Any) -> Any:
            loss = step(*args, **kwargs)
            watch(bar, loss.item(), name, schedule)
            return loss

        trainer.training_step = watched
        trainer.train()
        bar.close()
    vars(model).pop("forward", None)  # trl's own, with another head
    model.config.use_cache = cached  # the library turns it off for good, and generation from then on is slow
    model.to("cpu").eval()
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise WeighinError(
            f"{name}: the last step left weights that are not finite. Lower learning_rate ({schedule.learning_rate:g})"
        )
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@contextmanager
def _alone() -> Iterator[None]:
    """Within the block the library does not tell its makers that it was used."""
    from huggingface_hub import constants

    with patch.object(constants, "HF_HUB_DISABLE_TELEMETRY", True):
        yield
