"""How much room a piece of work asks for, taken from the size of the models that it loads, and how much there is.

Work that shares a machine has a share of its processors that the class of the machine and the size of the checkpoint
decide, never what else is going on: another number of threads may mean other last bits.
"""

from collections.abc import Iterable

from weighin.harness import checkpoints, machine, registry
from weighin.harness.endpoint import settled
from weighin.harness.engine import Wants
from weighin.harness.plugin import Checkpoint

LIBRARIES = 1 << 30
"""Resident bytes of a process that has torch, transformers and lm-eval loaded, rounded up."""
SHARES = 4
"""Pieces of work that share a machine, at most."""


def of_cell(checkpoint: Checkpoint, relatives: Iterable[Checkpoint], suite: str) -> Wants:
    """Weights as they are read and again as they compute, and those of relatives beside them.

    All of a machine for times, bytes and joules, and for what a server answers: its load is a part of its protocol.
    """
    needed = LIBRARIES + 2 * _bytes({c.key: c for c in (checkpoint, *relatives)}.values())
    alone = registry.suite(suite).alone or settled(checkpoint.path)
    return Wants(share(needed), needed, _gpus(), alone, (checkpoint.key,))


def of_look(checkpoint: Checkpoint) -> Wants:
    """All of a machine: what a checkpoint is, is established once."""
    return Wants(processors(), LIBRARIES + 2 * _bytes([checkpoint]), _gpus(), True, (checkpoint.key,))


def of_stage(checkpoints_read: Iterable[Checkpoint]) -> Wants:
    """Four times the weights: as they are, gradients, and an optimiser's two moments. Alone: what it costs is kept."""
    read = {checkpoint.key: checkpoint for checkpoint in checkpoints_read}
    return Wants(processors(), LIBRARIES + 4 * _bytes(read.values()), _gpus(), True, tuple(read))


def share(needed: int) -> int:
    """Threads of work that needs so many bytes and shares a machine of this class; no more than a process may have."""
    threads = max(1, processors() // max(1, min(width(), memory() // needed)))
    told = str(machine.facts()["threads"] or "").partition(",")[0]
    return min(threads, int(told)) if told.isdigit() and int(told) else threads


def width() -> int:
    """Pieces of work that this machine has room for at a time: one for each accelerator, where there are any."""
    return max(1, min(SHARES, accelerators() or processors()))


def beside(suites: Iterable[str]) -> dict[str, int]:
    """How many cells of each suite go on at a time here, for estimates."""
    return {name: width() for name in suites if not registry.suite(name).alone}


def processors() -> int:
    """How many this process may use."""
    return int(machine.facts()["cores"])


def memory() -> int:
    """Physical memory, B."""
    return machine.ram_bytes()


def accelerators() -> int:
    """How many there are."""
    return len(str(machine.facts()["gpu"] or "").splitlines())


def _bytes(found: Iterable[Checkpoint]) -> int:
    return sum(checkpoints.disk_bytes(checkpoint.path) for checkpoint in found if checkpoint.path.is_dir())


def _gpus() -> float:
    return 1.0 if machine.facts()["gpu"] else 0.0
