"""lm-eval: `results_*.json` with the `samples_TASK_*.jsonl` beside it, layouts of 0.3 and 0.4.

A metric keeps its items where they are all there and make up the figure that the file states; else the figure is kept
with its stated error. Items have the hash that the accuracy suite gives to the same document.

Formats: lm_eval/loggers/evaluation_tracker.py and lm_eval/evaluator.py of EleutherAI/lm-evaluation-harness.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from weighin.results import import_lm_eval_setup as setup
from weighin.results.foreign import Log, Measured, Subject, figure, is_share
from weighin.results.import_lm_eval_samples import Rows, Survey, survey
from weighin.results.outside import (
    file_hash,
    lines,
    name,
    number,
    prose,
    stated,
    table,
    value_hash,
    whole,
)
from weighin.results.records import Better, Metric, Sample

TOOL = "lm-eval"

LOWER = {"ppl", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter", "wer"}
HIGHER = re.compile(r"acc|exact_match|em$|f1|mc[12]$|bleu|rouge|chrf|mcc|pass@|prompt_level|inst_level")
"""Which way is better, by the metric's name, for files of before lm-eval 0.4.3, which do not say."""
BESIDE = {"alias", "name", "sample_len", "sample_count", "samples", " ", ""}


def recognizes(data: Any) -> bool:
    """Whether a JSON value is a results file of lm-eval."""
    return (
        isinstance(data, dict)
        and isinstance(data.get("results"), dict)
        and bool({"versions", "configs", "n-shot"} & data.keys())
        and all(isinstance(row, dict) for row in data["results"].values())
    )


def read(path: Path, data: Mapping[str, Any]) -> Log:
    """The log of a results file and of the samples beside it. Raises `Unreadable` where a samples file is broken."""
    notes: list[str] = []
    beside = _beside(path, data)
    logged: dict[str, Rows] = {task: partial(iter, rows) for task, rows in _within(data).items()}
    logged |= {task: partial(lines, file) for task, file in beside.items()}
    surveys = {task: survey(rows, _filters(data, task)) for task, rows in logged.items()}
    files = [{"path": str(path), "sha256": file_hash(path)}]
    files += [{"path": str(file), "sha256": file_hash(file)} for file in beside.values()]
    config = table(data.get("config"))
    args = setup.arguments(config.get("model_args"))
    measured = Measured("accuracy", _samples(data, surveys, notes), setup.protocol(data, args), stated(config=config))
    facts = stated(
        model=setup.model(path, data, args), revision=args.get("revision") or config.get("model_revision"),
        sha=config.get("model_sha"), parameters=config.get("model_num_parameters"), arguments=args,
    )  # fmt: skip
    return Log(
        TOOL, setup.version(data), value_hash([file["sha256"] for file in files]), tuple(files),
        (Subject(setup.label(path, data, args), facts, (measured,)),), setup.started(path, data),
        setup.seconds(data), setup.machine(data), setup.packages(data), notes,
    )  # fmt: skip


def _beside(path: Path, data: Mapping[str, Any]) -> dict[str, Path]:
    """The samples file of each task that has one: of the same date; else the only one; else as 0.4.0 named it."""
    date = path.stem.rpartition("_")[2]
    found = {}
    near = sorted(p for p in path.parent.iterdir() if p.suffix in (".jsonl", ".json") and p != path and p.is_file())
    others = [p for p in near if p.name.startswith("samples_")]
    alone = sum(p.name.startswith("results") and p.suffix == ".json" for p in path.parent.iterdir()) == 1
    for task in data["results"]:
        exact = [p for p in others if p.stem == f"samples_{task}_{date}"]
        loose = [p for p in others if re.fullmatch(rf"samples_{re.escape(task)}(_\d{{4}}-\d\d-\d\dT.*)?", p.stem)]
        old = [p for p in near if p.suffix == ".jsonl" and p.stem.endswith(f"_{task}") and path.stem == "results"]
        candidates = exact or ((loose or old) if alone else [])
        if len(candidates) == 1:
            found[task] = candidates[0]
    return found


def _within(data: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Samples in the results themselves, as `simple_evaluate` returns them."""
    return {k: v for k, v in table(data.get("samples")).items() if isinstance(v, list) and k in data["results"]}


def _rows(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Tasks and groups with their figures; a group stands in `results` and, in some layouts, only in `groups`."""
    groups = {k: v for k, v in table(data.get("groups")).items() if k not in data["results"]}
    for task, row in [*data["results"].items(), *groups.items()]:
        if isinstance(row, dict):
            yield task, row


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, float | None]]:
    """Metric, filter, value and stated error of a task; `acc,none` since 0.4, plain `acc` before."""
    for key, value in row.items():
        metric, _, filtered = str(key).partition(",")
        if metric in BESIDE or metric.endswith("_stderr") or (isinstance(value, str | list | dict) and value != "N/A"):
            continue
        suffix = f",{filtered}" if filtered else ""
        yield metric, filtered or "none", value, number(row.get(f"{metric}_stderr{suffix}"))


def _filters(data: Mapping[str, Any], task: str) -> list[str]:
    return list(dict.fromkeys(filtered for _, filtered, _, _ in _figures(table(data["results"].get(task)))))


def _items(data: Mapping[str, Any], task: str, seen: frozenset[str] = frozenset()) -> int | None:
    """How many items a task was run on, or a group's tasks together."""
    members = table(data.get("group_subtasks")).get(task)
    if isinstance(members, list) and members and task not in seen:
        counts = [_items(data, str(member), seen | {task}) for member in members]
        return sum(c for c in counts if c) if all(counts) else None
    row = table(data["results"].get(task))
    said = table(table(data.get("n-samples")).get(task)).get("effective")
    return whole(said) or whole(row.get("sample_len")) or whole(row.get("samples"))


def _given_away(row: Mapping[str, Any]) -> int | None:
    """The number of items of a task whose file does not say it (before 0.4.3), where one of its figures is a share p
    of them: its standard error is then sqrt(p (1 - p) / (n - 1)), which gives n away."""
    for _, _, value, error in _figures(row):
        share = number(value)
        if share is not None and 0 < share < 1 and error:
            n = share * (1 - share) / error**2 + 1
            if 2 <= n < 1e9 and math.isclose(n, round(n), rel_tol=1e-7) and is_share(share, error, round(n)):
                return round(n)
    return None


def _better(data: Mapping[str, Any], task: str, metric: str) -> Better:
    said = table(table(data.get("higher_is_better")).get(task))
    if isinstance(said.get(metric), bool):
        return "higher" if said[metric] else "lower"
    if metric in said:
        return "none"
    return "lower" if metric in LOWER else "higher" if HIGHER.search(metric) else "none"


def _samples(data: Mapping[str, Any], surveys: Mapping[str, Survey], notes: list[str]) -> Iterator[Sample]:
    for task, row in _rows(data):
        items, found = _items(data, task) or _given_away(row), surveys.get(task)
        kept: dict[tuple[str, str], Metric] = {}
        left_out = []
        for metric, filtered, value, error in _figures(row):
            label = metric if filtered == "none" else f"{metric},{filtered}"
            unit = "bit/byte" if metric == "bits_per_byte" else "1"
            meaning = Metric(name(f"{task}/{label}"), unit, _better(data, task, metric))
            how = found.reduction((metric, filtered), number(value), items) if found else None
            if found and how:
                kept[metric, filtered] = Metric(meaning.name, unit, meaning.better, how)
                continue
            if found:
                left_out.append(label)
            told = stated(documents=found.documents if found else None)
            yield figure(meaning, number(value), error=error, n=items, detail=told)
        if found and left_out:
            notes.append(_why(task, left_out, found, items))
        if found and kept:
            yield from found.samples(kept, _cluster(data, task))


def _cluster(data: Mapping[str, Any], task: str) -> str | None:
    """The field by which documents belong together, where the task says so in its metadata, as ours do."""
    field = table(table(table(data.get("configs")).get(task)).get("metadata")).get("cluster")
    return field if isinstance(field, str) else None


def _why(task: str, labels: list[str], found: Survey, items: int | None) -> str:
    which = ", ".join(name(label) for label in labels)
    if items is not None and found.documents < items:
        why = f"its samples file holds {found.documents:,} of {items:,} items"
    else:
        why = "no mean of its samples gives it"
    return f"{name(prose(task))}: {which} is kept as the figure that the file states: {why}"
