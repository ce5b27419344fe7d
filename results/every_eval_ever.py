"""A run as records of every_eval_ever: one a variant and suite, each figure with its interval and n.

Format: version 0.2.2 of every_eval_ever/schemas/eval.schema.json of evaleval/every_eval_ever.
"""

import json
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from weighin.results.outside import table
from weighin.results.store import Store

SCHEMA = "0.2.2"

LIBRARIES = {"lm-eval": "lm_eval", "inspect": "inspect_ai"}
"""What every_eval_ever calls the tools that it knows by another name."""

SHARES = """
    select evaluation_id, metric from metrics m join samples s using (evaluation_id, metric)
    where evaluation_id in (select evaluation_id from cells where run_id = ?)
    and m.unit = '1' and m.reduce = 'mean' and not m.signed
    group by all having count(distinct s.item) > 1
    and bool_and(s.value in (0, 1) and s.weight = 1) filter (where s.value is not null)
"""
"""Metrics of a run that are a share of items, each of them 0 or 1: they lie between 0 and 1."""

Row = Mapping[str, Any]


def records(store: Store, run: str, variant: str | None = None) -> Iterator[dict[str, Any]]:
    """The records of a run, or of one variant of it. A metric without a value is in none: a record has no place for
    the reason why."""
    with store.snapshot() as held:
        rows = held.rows(
            """select s.*, e.protocol, e.started_at from scores s join evaluations e using (evaluation_id)
               where s.run_id = ? and s.value is not null and (? is null or s.variant = ?)
               order by s.position, s.suite, s.metric""",
            [run, variant, variant],
        )
        shares = {(row["evaluation_id"], row["metric"]) for row in held.rows(SHARES, [run])}
        cards = {card["variant"]: card for card in held.rows("select * from variant_cards where run_id = ?", [run])}
        roots = {row["variant_key"]: row["params"] for row in held.rows("select variant_key, params from variants")}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        share = (row["evaluation_id"], row["metric"]) in shares
        groups.setdefault((row["variant"], row["suite"]), []).append({**row, "share": share})
    for (label, _), group in groups.items():
        yield _record(group, _model(cards[label], table(roots.get(cards[label]["root_key"])), group[0]))


def _record(rows: list[Row], model: dict[str, Any]) -> dict[str, Any]:
    first = rows[0]
    origin = table(first["protocol"].get("origin"))
    now = f"{time.time():.6f}"
    library = {"name": "weighin", "version": metadata.version("weighin")}
    if origin:
        tool = str(origin.get("tool"))
        library = {"name": LIBRARIES.get(tool, tool), "version": str(origin.get("version", "unknown"))}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{first['suite']}/{model['id'].replace('/', '_')}/{now}",
        "evaluation_timestamp": f"{first['started_at'].timestamp():.0f}",
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "weighin",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": {"run": first["run_id"], "evaluation_key": first["evaluation_key"]},
        },
        "eval_library": library,
        "model_info": model,
        "evaluation_results": [_result(row) for row in rows],
    }


def _model(card: Row, root: Row, row: Row) -> dict[str, Any]:
    """The checkpoint: its base by its own name, and what was made of it as a variant of that."""
    base = str(root.get("model") or card["variant"])
    if base.startswith((".", "/", "~")):  # where it lies is nobody's business
        base = Path(base).name
    packages = table(row["protocol"].get("packages"))
    found: dict[str, Any] = {"name": card["variant"], "id": base if card["depth"] == 0 else f"{base}+{card['variant']}"}
    if "/" in base:
        found["developer"] = base.split("/")[0]
    if packages.get("transformers"):
        found["inference_engine"] = {"name": "transformers", "version": str(packages["transformers"])}
    facts = {
        "variant_key": card["variant_key"], "base": base, "revision": root.get("revision"), "stage": card["stage"],
        "params": card["params"] if card["stage"] else None, "form": row["form"], "kernel": row["kernel"],
        "parameters": card["parameters"], "disk_bytes": card["disk_bytes"], "dtypes": card["dtypes"],
    }  # fmt: skip
    return {**found, "additional_details": words(facts)}


def _result(row: Row) -> dict[str, Any]:
    task, slash, _ = row["metric"].rpartition("/")
    setup = table(table(row["protocol"].get("tasks")).get(task))
    return {
        "evaluation_result_id": f"{row['evaluation_id']}/{row['metric']}",
        "evaluation_name": task if slash else row["suite"],
        "source_data": _data(task or row["suite"], setup, row),
        "metric_config": _metric(row),
        "score_details": _score(row),
    }


def _data(name: str, setup: Row, row: Row) -> dict[str, Any]:
    dataset = setup.get("dataset")
    details = words({**setup, "data": row["protocol"].get("data")})
    if isinstance(dataset, str) and dataset.count("/") == 1 and not dataset.startswith((".", "/")):
        return {
            "dataset_name": name, "source_type": "hf_dataset", "hf_repo": dataset, "additional_details": details
        }  # fmt: skip
    return {"dataset_name": name, "source_type": "other", "additional_details": details}


def _metric(row: Row) -> dict[str, Any]:
    share = row["share"]
    found: dict[str, Any] = {
        "metric_id": f"{row['suite']}.{row['metric']}",
        "metric_name": row["metric"].rpartition("/")[2],
        "metric_unit": "proportion" if share else row["unit"],
        "lower_is_better": row["better"] == "lower",
        "additional_details": words({"better": row["better"], "reduce": row["reduce"], "source": row["source"]}),
    }
    return {**found, "score_type": "continuous", "min_score": 0, "max_score": 1} if share else found


def _score(row: Row) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": row["n"]}
    if row["ci_low"] is not None:
        uncertainty["confidence_interval"] = {
            "lower": row["ci_low"], "upper": row["ci_high"], "confidence_level": 0.95, "method": row["ci_method"]
        }  # fmt: skip
    details = {
        "no_interval": row["ci_reason"],
        "unscored": row["unscored"] or None,
        "not_eligible": row["eligible_reason"],
    }
    return {"score": row["value"], "uncertainty": uncertainty, "details": words(details)}


def words(facts: Row) -> dict[str, str]:
    """What is known of `facts` as text, as the schema wants it."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        for key, value in facts.items()
        if value is not None
    }
