"""pytest-benchmark: JSON of `--benchmark-json` or `--benchmark-save`, with the rounds themselves or their statistics.

What is measured is a program rather than a model: it is named by its project and commit.

Format: pytest_benchmark/stats.py and plugin.py of ionelmc/pytest-benchmark.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.results.foreign import Log, Measured, Subject, mean_of
from weighin.results.outside import moment, name, number, prose, stated, table, value_hash, whole
from weighin.results.records import Metric, Sample

TOOL = "pytest-benchmark"


def recognizes(data: Any) -> bool:
    """Whether a JSON value is a file of pytest-benchmark."""
    return isinstance(data, dict) and isinstance(data.get("benchmarks"), list) and "machine_info" in data


def read(path: Path, data: Mapping[str, Any]) -> Log:
    """The log of a file; seconds a call, the mean of the rounds."""
    benchmarks = [entry for entry in data["benchmarks"] if isinstance(entry, dict)]
    commit, machine = table(data.get("commit_info")), table(data.get("machine_info"))
    notes: list[str] = []
    measured = Measured("benchmark", _samples(benchmarks, notes), _protocol(benchmarks, machine), stated(commit=commit))
    content = value_hash(data)
    return Log(
        TOOL, name(data["version"]) if data.get("version") else None, content,
        ({"path": str(path), "content": content},),
        (Subject(_label(path, commit), stated(model=_label(path, commit), commit=commit), (measured,)),),
        moment(data.get("datetime")) or datetime.fromtimestamp(path.stat().st_mtime, UTC), None, _machine(machine),
        stated(pytest_benchmark=data.get("version"), python=machine.get("python_version")), notes,
    )  # fmt: skip


def _label(path: Path, commit: Mapping[str, Any]) -> str:
    project, sha = commit.get("project"), commit.get("id")
    if not isinstance(sha, str) or not sha or sha == "unversioned":
        return name(project or path.stem)
    return name(f"{project or path.stem}@{sha[:12]}{' (changed)' if commit.get('dirty') else ''}")


def _protocol(benchmarks: list[Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    python = {key: machine.get(key) for key in ("python_implementation", "python_version", "python_compiler")}
    tasks = {
        name(_full(entry)): stated(options=entry.get("options"), params=entry.get("params")) for entry in benchmarks
    }
    return {"python": stated(**python), "tasks": tasks}


def _full(entry: Mapping[str, Any]) -> str:
    return str(entry.get("fullname") or entry.get("name") or "?")


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    cpu = table(machine.get("cpu"))
    system = " ".join(str(machine[key]) for key in ("system", "release", "machine") if machine.get(key))
    return stated(
        hostname=name(machine["node"]) if machine.get("node") else None,
        os=name(system, ""),
        cpu=name(cpu.get("brand_raw") or cpu.get("brand") or machine.get("processor") or "", ""),
        cores=whole(cpu.get("count")),
    )


def _samples(benchmarks: list[Any], notes: list[str]) -> Iterator[Sample]:
    seen: dict[str, int] = {}
    for entry in benchmarks:
        full = name(_full(entry))
        seen[full] = seen.get(full, 0) + 1
        title = full if seen[full] == 1 else f"{full} #{seen[full]}"
        metric = Metric(title, "s", "lower", "mean", runtime=True)
        stats = table(entry.get("stats"))
        detail = stated(group=entry.get("group"), params=entry.get("params"), extra_info=entry.get("extra_info"))
        yield from _rounds(metric, stats, prose(detail), notes)


def _rounds(metric: Metric, stats: Mapping[str, Any], detail: dict[str, Any], notes: list[str]) -> Iterator[Sample]:
    mean, deviation, count = number(stats.get("mean")), number(stats.get("stddev")), whole(stats.get("rounds"))
    data = stats.get("data")
    values = [number(value) for value in data] if isinstance(data, list) else []
    known = [value for value in values if value is not None]
    if known and len(known) == len(values):
        average = math.fsum(known) / len(known)
        if mean is None or math.isclose(average, mean, rel_tol=1e-6):
            for i, value in enumerate(known):
                told = detail if i == 0 else {}
                yield Sample(f"round {i}", value, metric, source="imported", detail=told)
            return
        notes.append(f"{metric.name}: its rounds have the mean {average:g} s, but {mean:g} s is stated and kept")
    yield mean_of(metric, mean, deviation, count, **detail)
