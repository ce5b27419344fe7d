"""What another tool measured, in our terms, and keeping it: one file is one run, kept whole or not at all.

An importer (`import_TOOL.py`) turns a file into a `Log`. Nothing in it is ours: its machine, its models and its
protocol have keys made of what the file says, so that they can never be taken for a machine or checkpoint of our own.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from weighin.results.outside import prose, value_hash
from weighin.results.records import Metric, Sample, Source
from weighin.results.rows import EvaluationRow, Machine, RunRow, VariantRow
from weighin.results.statistics import normal, student, wilson
from weighin.results.store import Store

WHOLE = "whole set"
"""The item of a figure that stands for a whole set."""
UNSTATED = "the file states no error"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One suite's samples of one model. `samples` may be a generator: it is gone through once, while it is kept.

    `protocol` is what must be alike before its figures may be compared, apart from the tool, which is the log's;
    `tasks` in it holds by task what concerns this task's metrics alone.
    """

    suite: str
    samples: Iterable[Sample]
    protocol: Json = field(default_factory=dict)
    params: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model, or whatever else was measured, by a name of its own within its file."""

    label: str
    facts: Json
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class Log:
    """All that a tool's file tells. `content` is a SHA-256 of what it says: by it a second import is known.

    `machine` may state `hostname`, `os`, `cpu`, `cores`, `ram_bytes` and `gpu`, and more. `notes` says what was left
    out or taken otherwise than the file presents it; importers may still add to it while samples are gone through.
    """

    tool: str
    version: str | None
    content: str
    files: tuple[Json, ...]
    subjects: tuple[Subject, ...]
    started_at: datetime
    seconds: float | None = None
    machine: Json = field(default_factory=dict)
    packages: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """The run that holds it, whoever imports it and whenever."""
        return f"{self.tool}-{self.content[:12]}"

    @property
    def origin(self) -> dict[str, Any]:
        """The tool, as every protocol names it."""
        return {"tool": self.tool, "version": self.version or "unknown"}


def keep(store: Store, log: Log, label: str | None = None) -> tuple[bool, tuple[str, ...]]:
    """Keep a log as a run of its own, in one transaction, unless the store holds it already: whether it was kept now,
    and the labels of its models.

    `label` names its model; where it has several, it stands before their own names. Raises `StoreError`.
    """
    with store.together() as held:
        known = held.rows("select label from labels where run_id = ? order by position", [log.run_id])
        if known:
            return False, tuple(row["label"] for row in known)
        labels = {subject.label: _label(subject.label, label, len(log.subjects)) for subject in log.subjects}
        machine = _machine(log)
        held.add_machine(machine)
        now = datetime.now(UTC).isoformat()
        origin = prose({**log.origin, "content": log.content, "files": list(log.files), "imported_at": now})
        held.start_run(
            RunRow(
                log.run_id, {"origin": origin}, f"imported from {log.tool} {log.version or ''}".strip(), None,
                prose(log.packages), machine.machine_key, log.started_at,
            ),
            [(labels[subject.label], _key(log, subject)) for subject in log.subjects],
            [(labels[subject.label], one.suite) for subject in log.subjects for one in subject.measured],
        )  # fmt: skip
        for subject in log.subjects:
            _keep(held, log, subject, labels[subject.label], machine.machine_key)
        held.end_run(log.run_id, "ok")
    return True, tuple(labels.values())


def _keep(held: Store, log: Log, subject: Subject, label: str, machine: str) -> None:
    key = _key(log, subject)
    held.add_variant(
        VariantRow(key, None, key, None, {**prose(subject.facts), "origin": log.origin}, 0, log.started_at)
    )
    for one in subject.measured:
        place = f"{key}-{one.suite}"
        protocol = {**prose(one.protocol), "suite": one.suite, "origin": log.origin}
        row = EvaluationRow(
            place, place, key, one.suite, prose(one.params), protocol, machine, log.started_at, log.seconds, "ok"
        )
        held.add_evaluation(row, one.samples, (log.run_id, label, one.suite))


def _label(own: str, given: str | None, count: int) -> str:
    return own if given is None else given if count == 1 else f"{given}: {own}"


def _key(log: Log, subject: Subject) -> str:
    return f"imported-{value_hash([log.tool, log.content, subject.label])}"


def _machine(log: Log) -> Machine:
    """The machine that the file tells of; one that it does not tell of is like no other."""
    facts = prose(log.machine)
    alike = {name: value for name, value in facts.items() if name != "hostname"}
    key = f"imported-{value_hash(alike or log.content)}"
    known = {name: facts.get(name) for name in ("hostname", "os", "cpu", "cores", "ram_bytes", "gpu")}
    words = {name: str(known[name] or "unknown") for name in ("hostname", "os", "cpu")}
    gpu = str(known["gpu"]) if known["gpu"] else None
    return Machine(key, words["hostname"], words["os"], words["cpu"], known["cores"], known["ram_bytes"], gpu, facts)


def figure(
    metric: Metric,
    value: float | None,
    *,
    error: float | None = None,
    n: int | None = None,
    source: Source = "imported",
    reason: str | None = None,
    detail: Json | None = None,
) -> Sample:
    """A figure of a whole set with its interval, or with the reason why it has none.

    `error` is its standard error as the file states it; a share of n items gets Wilson's limits as every share of ours
    does: a stated error of 0 at 0 or 1 does not mean that it is certain.
    """
    told = {**(detail or {}), **{k: v for k, v in (("stated_error", error), ("items", n)) if v is not None}}
    if value is None:
        return Sample(WHOLE, None, metric, source=source, reason=reason or "the file gives no number", detail=told)
    limits, count = _limits(metric, value, error, n)
    if limits is None:
        return Sample(WHOLE, value, metric, source=source, reason=reason or UNSTATED, detail=told)
    low, high = min(limits[0], value), max(limits[1], value)
    return Sample(WHOLE, value, metric, weight=float(count or 1), source=source, low=low, high=high, detail=told)


def _limits(
    metric: Metric, value: float, error: float | None, n: int | None
) -> tuple[tuple[float, float] | None, int | None]:
    """The 95 % limits, and the number of items behind them where it is known."""
    if n is not None and metric.unit == "1" and is_share(value, error, n):
        return wilson(round(value * n), n), n
    if error is None or error <= 0:
        return None, n
    half = normal(0.975) * error
    return (value - half, value + half), n


def is_share(value: float, error: float | None, n: int) -> bool:
    """Whether a figure can only be the share of n items: a whole number of them, with a share's standard error."""
    if not 0 <= value <= 1 or abs(value * n - round(value * n)) > 1e-6 * max(1.0, value * n):
        return False
    return error is None or math.isclose(error, share_error(value, n), rel_tol=1e-3, abs_tol=1e-9)


def share_error(value: float, n: int) -> float:
    """The standard error of the mean of n values of 0 and 1, by their sample standard deviation."""
    return math.sqrt(value * (1 - value) / max(n - 1, 1))


def mean_of(metric: Metric, mean: float | None, deviation: float | None, n: int | None, **told: Any) -> Sample:
    """A mean of n independent values with their sample standard deviation: Student's limits from 5 values on."""
    if mean is None or not deviation or n is None or n < 5:
        few = "fewer than 5 values" if n is not None and n < 5 else UNSTATED
        return figure(metric, mean, n=None, reason=None if mean is None else few, detail=told)
    half = student(0.975, n - 1) * deviation / math.sqrt(n)
    detail = {**told, "stated_deviation": deviation, "items": n}
    return Sample(
        WHOLE, mean, metric, weight=float(n), source="imported", low=mean - half, high=mean + half, detail=detail
    )
