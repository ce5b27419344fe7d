"""The rows a writer hands to the store, one frozen dataclass a table; the field names are the columns' names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from weighin.results.records import Source, Status

Json = Mapping[str, Any]
Form = Literal["dense", "packed", "simulated"]
RunStatus = Literal["running", "ok", "failed"]
CellStatus = Literal["planned", "running", "ok", "abstained", "failed"]


@dataclass(frozen=True)
class Machine:
    """A machine class: `machine_key` hashes what makes two machines comparable; `facts` is what it was made of.

    What is None is not known, as of a machine that another tool's file tells of.
    """

    machine_key: str
    hostname: str
    os: str
    cpu: str
    cores: int | None
    ram_bytes: int | None
    gpu: str | None
    facts: Json


@dataclass(frozen=True)
class VariantRow:
    """A checkpoint and how it was made; `parent_key`, `stage` and the costs are None for a base.

    `others` holds the keys of the checkpoints that parameters name, by parameter.
    """

    variant_key: str
    parent_key: str | None
    root_key: str
    stage: str | None
    params: Json
    depth: int
    made_at: datetime
    made_seconds: float | None = None
    made_peak_bytes: int | None = None
    made_on: str | None = None
    made_joules: float | None = None
    made_joules_source: Source | None = None
    others: Json = field(default_factory=dict)


@dataclass(frozen=True)
class IdentityRow:
    """What a checkpoint turned out to be when it was reloaded from disk on a machine; sizes in bytes."""

    variant_key: str
    machine_key: str
    parameters: int
    disk_bytes: int
    memory_bytes: int
    dtypes: Json
    form: Form
    kernel: str
    sparsity: float
    distance: float | None
    distance_reason: str | None = None
    serving: Json = field(default_factory=dict)
    loader: str | None = None


@dataclass(frozen=True)
class RunRow:
    """One call of `weighin run`."""

    run_id: str
    spec: Json
    spec_name: str
    git_sha: str | None
    packages: Json
    machine_key: str
    started_at: datetime
    ended_at: datetime | None = None
    status: RunStatus = "running"


@dataclass(frozen=True)
class EvaluationRow:
    """One suite's measurement of one variant on one machine; `protocol` is what must be alike for a comparison."""

    evaluation_id: str
    evaluation_key: str
    variant_key: str
    suite: str
    params: Json
    protocol: Json
    machine_key: str
    started_at: datetime
    seconds: float | None
    status: Status
    reason: str | None = None


@dataclass(frozen=True)
class CalibrationRow:
    """What one instrument recovered of one planted truth in one call of `weighin calibrate`."""

    calibration_id: str
    position: int
    machine_key: str
    suite: str
    instrument: str
    plant: str
    target: str
    unit: str
    planted: float | None
    recovered: float | None
    low: float | None
    high: float | None
    passed: bool
    reason: str | None
    code: str
    seconds: float
    tried_at: datetime


@dataclass(frozen=True)
class VerdictRow:
    """What one rule of the gate came to in one call; `look` counts from 1 where the gate looks at growing numbers."""

    judgement_id: str
    position: int
    judged_at: datetime
    run_id: str
    against_run: str | None
    metric: str
    rule: Json
    outcome: str
    why: str
    waived: Sequence[str]
    evidence: Json
    look: int = 1


@dataclass(frozen=True)
class WaiverRow:
    """Fields of a protocol that differed between two evaluations and were allowed to, and in which verb."""

    waived_at: datetime
    verb: str
    metric: str
    evaluation_a: str
    evaluation_b: str
    fields: Sequence[str]


@dataclass(frozen=True)
class BuildRow:
    """A further build of a run's variant under a suite; without an evaluation the reason says why."""

    run_id: str
    label: str
    build: int
    suite: str
    variant_key: str
    evaluation_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CellRow:
    """One square of a run's grid, a variant under a suite; `log` is the file with the libraries' own output."""

    run_id: str
    label: str
    suite: str
    status: CellStatus
    evaluation_id: str | None = None
    reused: bool = False
    reason: str | None = None
    log: str | None = None
