"""How much room a piece of work asks for, taken from the size of the models that it loads."""

from collections.abc import Sequence

from weighin.harness import checkpoints, machine, registry
from weighin.harness.engine import Wants
from weighin.harness.plugin import Checkpoint

LIBRARIES = 1 << 30
"""Resident bytes of a process that has torch, transformers and lm-eval loaded, rounded up."""


def of_cell(checkpoint: Checkpoint, suite: str | None = None) -> Wants:
    """Weights twice (as they are read, and a parent beside them); all of a machine for times, bytes and joules."""
    alone = suite is not None and any(metric.runtime for metric in registry.suite(suite).metrics)
    return Wants(1.0, LIBRARIES + 2 * _bytes([checkpoint]), _gpus(), alone, (checkpoint.key,))


def of_stage(checkpoints_read: Sequence[Checkpoint]) -> Wants:
    """Four times the weights: as they are, gradients, and an optimiser's two moments."""
    read = tuple(checkpoint.key for checkpoint in checkpoints_read)
    return Wants(1.0, LIBRARIES + 4 * _bytes(checkpoints_read), _gpus(), near=read)


def _bytes(found: Sequence[Checkpoint]) -> int:
    return sum(checkpoints.disk_bytes(checkpoint.path) for checkpoint in found if checkpoint.path.is_dir())


def _gpus() -> float:
    return 1.0 if machine.facts()["gpu"] else 0.0
