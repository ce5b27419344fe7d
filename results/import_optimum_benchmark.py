"""optimum-benchmark: JSON reports with their configuration, and CSV reports of every age, in base units.

A CSV row is a measurement of one model in one configuration. Its columns are `forward.latency(s)` or
`Decode Latency (s)` (0.1), or a flattened report, `report.decode.latency.mean` (from 0.2 on).

Formats: optimum_benchmark/benchmark/report.py and trackers/ of huggingface/optimum-benchmark.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.results.foreign import Log, Measured, Subject, figure, mean_of
from weighin.results.import_optimum_benchmark_names import column, in_base, labels
from weighin.results.outside import (
    Unreadable,
    counted,
    name,
    number,
    parsed,
    read_bytes,
    stated,
    table,
    value_hash,
    whole,
)
from weighin.results.records import Sample, Source

TOOL = "optimum-benchmark"

KINDS = ("latency", "throughput", "memory", "energy", "efficiency")
"""What a target of a report may hold."""
ROWS = 100_000
"""Rows of one CSV file."""


def recognizes(data: Any) -> bool:
    """Whether a JSON value is a report, or a report and its configuration in one."""
    if not isinstance(data, dict):
        return False
    report = data["report"] if {"report", "config"} <= data.keys() else data
    return isinstance(report, dict) and any(_is_target(value) for value in report.values())


def _is_target(value: Any) -> bool:
    """A target holds nothing but kinds, and at least one that has a unit."""
    if not isinstance(value, dict) or not value or not value.keys() <= {*KINDS, "per_token", "per_step"}:
        return False
    return any(isinstance(part, dict) and "unit" in part for part in value.values())


def read(path: Path, data: Mapping[str, Any]) -> Log:
    """The log of a JSON report; the configuration beside it counts as part of it. Raises `Unreadable`."""
    whole_file = {"report", "config"} <= data.keys()
    config = table(data["config"]) if whole_file else _beside(path)
    report = data["report"] if whole_file else data
    flat = {**_flat({"config": config}), **_flat({"report": report})}
    content = value_hash([config, report])
    return _log(path, [flat], content)


def read_csv(path: Path) -> Log | None:
    """The log of a CSV file; None where none of its columns is a measurement. Raises `Unreadable`."""
    data = read_bytes(path)
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise Unreadable(f"{path}: is no CSV file ({error})") from None
    if len(rows) < 2 or not any(column(title) for title in rows[0]):
        return None
    if len(rows) > ROWS:
        raise Unreadable(f"{path}: has {len(rows):,} rows; a file of this kind may have {ROWS:,}")
    header, body = rows[0], rows[1:]
    ragged = next((i for i, row in enumerate(body, start=2) if row and len(row) != len(header)), None)
    if ragged is not None:
        raise Unreadable(f"{path}:{ragged}: has {len(body[ragged - 2])} fields where the header has {len(header)}")
    flat = [{title: value for title, value in zip(header, row, strict=True) if value != ""} for row in body if row]
    return _log(path, flat, value_hash(data.decode("utf-8-sig")))


def _beside(path: Path) -> dict[str, Any]:
    for file in ("benchmark_config.json", "experiment_config.json"):
        beside = path.with_name(file)
        if beside != path and beside.is_file():
            return dict(table(parsed(read_bytes(beside), beside)))
    return {}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects by their dotted names, as the tool's own CSV files have them; lists and null stay."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


# -- rows to subjects ------------------------------------------------------------------------------------------------


def _log(path: Path, rows: Sequence[Mapping[str, Any]], content: str) -> Log:
    setups = [
        {
            key.removeprefix("config."): value
            for key, value in row.items()
            if not (column(key) or key.startswith("report."))
        }
        for row in rows
    ]
    notes: list[str] = []
    machines = {value_hash(_machine(setup)): _machine(setup) for setup in setups}
    if len(machines) > 1:
        notes.append("its rows are of several machines: each row's own is in its protocol")
    subjects = []
    for label, row, setup in zip(labels(setups, path), rows, setups, strict=True):
        protocol = {**_protocol(setup), **({"machine": _machine(setup)} if len(machines) > 1 else {})}
        by_suite: dict[str, list[Sample]] = {}
        for suite, sample in _measurements(row, notes):
            by_suite.setdefault(suite, []).append(sample)
        measured = tuple(Measured(suite, samples, protocol, stated(**setup)) for suite, samples in by_suite.items())
        if measured:
            facts = stated(model=_model(setup) or label, revision=setup.get("hub_kwargs.revision"))
            subjects.append(Subject(label, facts, measured))
    if not subjects:
        raise Unreadable(f"{path}: no row of it holds a number")
    if len(subjects) < len(rows):
        notes.append(f"{len(rows) - len(subjects):,} of {len(rows):,} rows hold no number and are left out")
    version = next((setup[key] for setup in setups for key in VERSION if setup.get(key)), None)
    packages = {
        k.split(".")[1].removesuffix("_version"): v for k, v in setups[0].items() if k.endswith("_version") and v
    }
    return Log(
        TOOL, name(version) if version else None, content, ({"path": str(path), "content": content},), tuple(subjects),
        datetime.fromtimestamp(path.stat().st_mtime, UTC), None,
        next(iter(machines.values())) if len(machines) == 1 else {}, packages, notes,
    )  # fmt: skip


VERSION = ("environment.optimum_benchmark_version", "environment.optimum_benchmark_commit")
NOT_PROTOCOL = re.compile(
    r"|unnamed:.*|index|(environment|hub_kwargs)\..*|(backend\.)?(model|processor)|name|experiment[ _]name|group"
    r"|gpus?|gpu name|num gpus|.*\.(_target_|ports|volumes|ports\..*|volumes\..*|.*cache_dir)|(log|print)_report",
    re.IGNORECASE,
)
"""What names the model, the machine or the run rather than says how it was measured."""


def _model(setup: Mapping[str, Any]) -> str | None:
    said = next((setup[key] for key in ("model", "backend.model", "Model") if setup.get(key)), None)
    return None if said is None else name(said)


def _protocol(setup: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in setup.items() if not NOT_PROTOCOL.fullmatch(key)}
    packages = {k.split(".")[1]: v for k, v in setup.items() if k.startswith("environment.") and k.endswith("_version")}
    return {"setup": stated(**kept), "packages": stated(**packages)}


def _machine(setup: Mapping[str, Any]) -> dict[str, Any]:
    environment = {k.removeprefix("environment."): v for k, v in setup.items() if k.startswith("environment.")}
    gpus = environment.get("gpu") or environment.get("gpus") or setup.get("GPUs") or setup.get("GPU")
    megabytes = _count(environment.get("cpu_ram_mb"))
    return stated(
        os=environment.get("platform") or environment.get("system"),
        cpu=name(environment["cpu"]) if environment.get("cpu") else None,
        cores=_count(environment.get("cpu_count")),
        ram_bytes=int(megabytes * 1e6) if megabytes else None,
        gpu=_gpus(gpus),
    )


def _gpus(given: Any) -> str | None:
    """A list, or the text of one, as a CSV file has it."""
    names = given if isinstance(given, list) else re.split(r"', '|, ", str(given or "").strip("[]'"))
    return counted([name(one) for one in names if one][:1000])


def _count(value: Any) -> int | None:
    found = _number(value)
    return None if found is None or not 1 <= found < 1e12 else int(found)


def _number(value: Any) -> float | None:
    """A number, or text that is one, as it is in a CSV file."""
    try:
        return number(float(value)) if isinstance(value, str) else number(value)
    except (ValueError, OverflowError):
        return None


# -- columns to samples ----------------------------------------------------------------------------------------------


def _measurements(row: Mapping[str, Any], notes: list[str]) -> Iterator[tuple[str, Sample]]:
    """Suite and sample of everything measured in a row."""
    reports: dict[str, dict[str, Any]] = {}
    for title, value in row.items():
        if not (place := column(title)):
            continue
        if place.unit is not None:
            yield _figure(place.metric, place.unit, value)
        else:
            reports.setdefault(place.metric, {})[place.part] = value
    for metric_name, parts in reports.items():
        yield from _report(metric_name, parts, notes)


def _report(metric_name: str, parts: Mapping[str, Any], notes: list[str]) -> Iterator[tuple[str, Sample]]:
    """One target's latency, throughput, memory, energy or efficiency."""
    unit = parts.get("unit")
    if not isinstance(unit, str):
        return
    kind = metric_name.rpartition(".")[2]
    if kind == "latency":
        yield from (("latency", sample) for sample in _latency(metric_name, unit, parts, notes))
        return
    for part, value in parts.items():
        if part in ("unit", "count") or value is None:
            continue
        yield _figure(metric_name if part == "value" else f"{metric_name}.{part}", unit, value)


def _figure(metric_name: str, unit: str, value: Any) -> tuple[str, Sample]:
    """Suite and sample of one number. Energy is CodeCarbon's, which takes processor and memory from tables where it
    reads no counter, and does not say so."""
    metric, factor, suite = in_base(metric_name, unit)
    found = _number(value)
    source: Source = "modelled" if suite == "energy" else "imported"
    return suite, figure(metric, None if found is None else number(found * factor), source=source)


def _latency(metric_name: str, unit: str, parts: Mapping[str, Any], notes: list[str]) -> Iterator[Sample]:
    """The repetitions, where they make up the mean that is stated, else the mean with its deviation (over n)."""
    metric, factor, _ = in_base(metric_name, unit)
    mean, deviation, count = (_number(parts.get(key)) for key in ("mean", "stdev", "count"))
    values = parts.get("values")
    if isinstance(values, str):
        try:
            values = json.loads(values)
        except (ValueError, RecursionError):
            values = None
    numbers = [number(value) for value in values] if isinstance(values, list) else []
    known = [value for value in numbers if value is not None]
    if known and len(known) == len(numbers):
        average = sum(known) / len(known)
        if mean is None or abs(average - mean) <= 1e-6 * abs(mean):
            for i, value in enumerate(known):
                yield Sample(f"repetition {i}", value * factor, metric, source="imported")
            return
        notes.append(f"{name(metric_name)}: its values have the mean {average:g}, but {mean:g} is stated and kept")
    n = whole(count) or len(known) or None
    sample_deviation = deviation * factor * (n / (n - 1)) ** 0.5 if deviation and n and n > 1 else None
    yield mean_of(metric, None if mean is None else mean * factor, sample_deviation, n)
