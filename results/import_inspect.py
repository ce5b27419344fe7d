"""Inspect logs: `.json`, and `.eval`, which is a zip of JSON.

A score's mean keeps its samples where they make up the figure that the log states; any other metric is kept as the
figure. Nothing is ever unpacked to disk, so that a name in the zip leads nowhere.

Formats: inspect_ai/log/_log.py, inspect_ai/log/_recorders/eval.py and inspect_ai/scorer/_metric.py of
UKGovernmentBEIS/inspect_ai; log versions 1 to 3.
"""

import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.results.foreign import Log, Measured, Subject
from weighin.results.import_inspect_scores import Scored, figures, taken
from weighin.results.outside import Unreadable, file_hash, moment, name, parsed, stated, table, value_hash
from weighin.results.zips import unpacked

TOOL = "inspect"

SAMPLE = re.compile(r"samples/.+_epoch_\d+(/sample)?\.json")
"""A sample's entry in the zip: one for all of it, or the shell of one that is kept in chunks (log version 3)."""


def recognizes(data: Any) -> bool:
    """Whether a JSON value is a log of Inspect."""
    return isinstance(data, dict) and isinstance(data.get("eval"), dict) and "task" in data["eval"]


def read(path: Path, data: Mapping[str, Any]) -> Log:
    """The log of a `.json` file."""
    samples = data.get("samples")
    found = taken(sample for sample in samples if isinstance(sample, dict)) if isinstance(samples, list) else []
    reductions = data.get("reductions") or table(data.get("results")).get("sample_reductions")
    return _log(path, data, found, reductions, value_hash(data))


def read_zip(path: Path) -> Log:
    """The log of an `.eval` file, a sample at a time. Raises `Unreadable`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            header = _header(archive, path, set(names))
            samples = (_entry(archive, path, entry) for entry in names if SAMPLE.fullmatch(entry))
            found = taken(sample for sample in samples if isinstance(sample, dict))
            reductions = _entry(archive, path, "reductions.json") if "reductions.json" in names else None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise Unreadable(f"{path}: is not a whole .eval file ({str(error)[:120]})") from None
    if not recognizes(header):
        raise Unreadable(f"{path}: its header is not that of an Inspect log")
    return _log(path, header, found, reductions, file_hash(path))


def _header(archive: zipfile.ZipFile, path: Path, names: set[str]) -> dict[str, Any]:
    """The log without its samples; of one that was interrupted, what was known at its start."""
    if "header.json" in names:
        return dict(table(_entry(archive, path, "header.json")))
    found: dict[str, Any] = {}
    for part in ("_journal/start.json", "start.json", "results.json"):
        if part in names:
            found |= table(_entry(archive, path, part))
    return found


def _entry(archive: zipfile.ZipFile, path: Path, entry: str) -> Any:
    where = f"{path}: {name(entry)}"
    return parsed(unpacked(archive, archive.getinfo(entry), where), where)


def _log(path: Path, data: Mapping[str, Any], found: list[Scored], reductions: Any, content: str) -> Log:
    spec, stats = table(data.get("eval")), table(data.get("stats"))
    notes = _state(data)
    task = name(spec.get("task"))
    samples = list(figures(task, table(data.get("results")), found, reductions, notes))
    if not samples:
        raise Unreadable(f"{path}: holds no score" + (f": {notes[0]}" if notes else ""))
    measured = Measured("accuracy", samples, _protocol(task, data), stated(config=spec.get("config")))
    began, ended = moment(stats.get("started_at")), moment(stats.get("completed_at"))
    model = name(spec.get("model"), "unnamed")
    facts = stated(
        model=model, arguments=spec.get("model_args"), base_url=spec.get("model_base_url"),
        roles=spec.get("model_roles"), revision=spec.get("revision"),
    )  # fmt: skip
    packages = table(spec.get("packages"))
    version = packages.get("inspect_ai")
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Log(
        TOOL, name(version) if version else None, content, ({"path": str(path), "content": content},),
        (Subject(model, facts, (measured,)),), moment(spec.get("created")) or began or written,
        (ended - began).total_seconds() if began and ended else None, {}, stated(**packages), notes,
    )  # fmt: skip


def _state(data: Mapping[str, Any]) -> list[str]:
    """What must be known of a run that did not end well."""
    status = data.get("status", "started")
    if status == "success":
        return []
    said = table(data.get("error")).get("message")
    return [f"the run ended as {name(status)}" + (f" ({name(said)})" if said else "") + ": its figures may be partial"]


def _protocol(task: str, data: Mapping[str, Any]) -> dict[str, Any]:
    spec, plan = table(data.get("eval")), table(data.get("plan"))
    dataset, config = table(spec.get("dataset")), table(spec.get("config"))
    measured = {key: config.get(key) for key in ("limit", "epochs", "epochs_reducer", "sample_id", "message_limit",
                "token_limit", "time_limit", "working_limit")}  # fmt: skip
    return {
        "packages": stated(inspect_ai=table(spec.get("packages")).get("inspect_ai")),
        "tasks": {
            task: stated(
                version=spec.get("task_version"),
                arguments=spec.get("task_args"),
                dataset=dataset.get("location") or dataset.get("name"),
                samples=dataset.get("samples"),
                shuffled=dataset.get("shuffled"),
                plan=value_hash([plan.get("steps"), plan.get("finish")])[:16],
                generation=plan.get("config"),
            )
        },
        "run": stated(**measured),
        "status": data.get("status", "started"),
    }
