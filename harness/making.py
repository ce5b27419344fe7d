"""Making one checkpoint, wherever that is done: build, look at it reloaded from disk, publish."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.harness import checkpoints, environments, jobs, registry, worker
from weighin.harness.chain import Link
from weighin.harness.engine import Runner
from weighin.harness.model import Loading
from weighin.harness.plugin import Checkpoint


@dataclass(frozen=True)
class Order:
    """All that making a checkpoint needs; `relatives` are what it is compared with, `machine` the class it is for."""

    link: Link
    parent: Checkpoint
    others: Mapping[str, Sequence[Checkpoint]]
    relatives: Mapping[str, Checkpoint]
    loading: Loading
    machine: str
    log: Path


@dataclass(frozen=True)
class Built:
    """What became of an order: seconds of stage and look, why there is no checkpoint, what it turned out to be."""

    seconds: float
    reason: str | None = None
    identity: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Build:
    """An order as a piece of work."""

    order: Order

    def __call__(self, run: Runner) -> Built:
        return build(self.order, run)


@dataclass(frozen=True)
class Run:
    """One job as a piece of work; its checkpoints are looked for where it is done."""

    job: worker.Job

    def __call__(self, run: Runner) -> worker.Outcome:
        return run(replace(self.job, arguments={name: _here(value) for name, value in self.job.arguments.items()}))


def build(order: Order, run: Runner) -> Built:
    """Make a checkpoint and publish it, unless the stage fails or what it wrote cannot be loaded."""
    link = order.link
    stage = link.step.stage
    with checkpoints.building(link.key) as folder:
        arguments = {
            "stage": stage, "params": link.step.params, "parent": _here(order.parent), "out": folder,
            "others": _here(order.others),
        }  # fmt: skip
        made = run(worker.Job(jobs.make, arguments, order.log, registry.stage(stage).environment))
        if made.status != "ok":
            return Built(made.seconds, made.reason)
        looked_at = {
            "checkpoint": Checkpoint(folder, link.key), "relatives": _here(order.relatives), "loading": order.loading,
        }  # fmt: skip
        found = run(worker.Job(jobs.identify, looked_at, order.log, link.environment))
        seconds = made.seconds + found.seconds
        if reason := found.reason or _unchanged(stage, found.value):
            return Built(made.seconds, reason)
        identity = {"machine": order.machine, **found.value}
        checkpoints.publish(folder, link.key, _manifest(link, made, identity) | made.value)
    return Built(seconds, None, found.value)


def _here(value: Any) -> Any:
    """A checkpoint as this machine has it, alone or among others."""
    if isinstance(value, Checkpoint):
        return checkpoints.present(value)
    if isinstance(value, Mapping):
        return {name: _here(each) for name, each in value.items()}
    return [_here(each) for each in value] if isinstance(value, list) else value


def _unchanged(stage: str, identity: Mapping[str, Any]) -> str | None:
    """The fault of a stage that should have changed the weights and did not."""
    if identity["distance"] == 0.0 and registry.stage(stage).changes == "weights":
        return "its weights equal its parent's: the stage changed nothing"
    return None


def _manifest(link: Link, outcome: worker.Outcome, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parent": link.parent,
        "root": link.root,
        "depth": link.depth,
        "stage": link.step.stage,
        "params": dict(link.step.params),
        "packages": dict(environments.step_versions(link.step.stage, registry.stage(link.step.stage))),
        "made_at": datetime.now(UTC).isoformat(),
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
        "identity": dict(identity),
    }
