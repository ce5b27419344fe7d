"""The results section of a Hugging Face model card: `model-index` metadata and a table, figure by figure.

Format: huggingface_hub's `repocard_data.EvalResult` and the model-index of huggingface/hub-docs, modelcard.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from weighin.results.outside import table
from weighin.results.render import interval, plain
from weighin.results.store import Store

Row = Mapping[str, Any]


def model_card(store: Store, run: str, variant: str | None = None) -> str:
    """Markdown with YAML metadata at its head: every figure of a run, or of one variant, with interval, unit and n.

    What has no value is in the table with its reason, and not in the metadata, which has no place for it.
    """
    import yaml

    rows = store.rows(
        """select s.*, e.protocol from scores s left join evaluations e using (evaluation_id)
           where s.run_id = ? and (? is null or s.variant = ?) order by s.position, s.suite, s.metric""",
        [run, variant, variant],
    )
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row["variant"], []).append(row)
    index = [{"name": label, "results": _results(group)} for label, group in models.items()]
    head = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n## Evaluation\n\n" + "\n".join(_section(label, group) for label, group in models.items())


def _results(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a task, with its metrics."""
    tasks: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["value"] is not None:
            tasks.setdefault((row["suite"], row["metric"].rpartition("/")[0]), []).append(row)
    found = []
    for (suite, task), group in tasks.items():
        setup = table(table(table(group[0]["protocol"]).get("tasks")).get(task))
        dataset = {"name": task or suite, "type": str(setup.get("dataset") or task or suite)}
        if setup.get("dataset_name"):
            dataset["config"] = str(setup["dataset_name"])
        if setup.get("split"):
            dataset["split"] = str(setup["split"])
        metrics = [_metric(row) for row in group]
        found.append({"task": {"type": "text-generation", "name": suite}, "dataset": dataset, "metrics": metrics})
    return found


def _metric(row: Row) -> dict[str, Any]:
    label = row["metric"].rpartition("/")[2]
    known = {"unit": row["unit"], "n": row["n"], "source": row["source"]}
    if row["ci_low"] is None:
        known["no_interval"] = row["ci_reason"]
    else:
        known |= {"ci_low": row["ci_low"], "ci_high": row["ci_high"], "level": 0.95, "ci_method": row["ci_method"]}
    return {"type": label, "value": row["value"], "name": label, "args": known}


def _section(label: str, rows: Sequence[Row]) -> str:
    lines = [
        f"### {plain(label)}",
        "",
        "| suite | metric | value [95 % interval] | n | note |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        value = interval(row["value"], row["ci_low"], row["ci_high"], row["unit"] or "1")
        cells = (row["suite"], "all" if row["metric"] == "*" else row["metric"], value, str(row["n"]), _note(row))
        lines.append("| " + " | ".join(plain(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _note(row: Row) -> str:
    if row["value"] is None:
        return f"{row['status']}: {row['reason']}"
    notes = [] if row["source"] == "measured" else [str(row["source"])]
    if row["ci_low"] is None:
        notes.append(f"no interval: {row['ci_reason']}")
    return "; ".join([*notes, *([row["eligible_reason"]] if row["eligible_reason"] not in (None, *notes) else [])])
