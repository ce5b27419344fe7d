"""Model cards and records of every_eval_ever: valid by their own rules, each figure with interval and n."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from jsonschema import Draft7Validator

from tests.stores import ACC, ENERGY, KL, TTFT, fill, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.export import export
from weighin.results.importing import import_files
from weighin.results.records import Metric, Sample
from weighin.results.store import Store

TEXT: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
RESULT: dict[str, Any] = {
    "type": "object",
    "required": ["evaluation_name", "source_data", "metric_config", "score_details"],
    "properties": {
        "evaluation_name": {"type": "string"},
        "source_data": {
            "required": ["dataset_name", "source_type"],
            "properties": {"source_type": {"enum": ["url", "hf_dataset", "other"]}, "additional_details": TEXT},
        },
        "metric_config": {
            "required": ["lower_is_better"],
            "properties": {"lower_is_better": {"type": "boolean"}, "additional_details": TEXT},
            "if": {"required": ["score_type"]},
            "then": {"required": ["min_score", "max_score"]},
        },
        "score_details": {
            "required": ["score", "uncertainty"],
            "properties": {
                "score": {"type": "number"},
                "details": TEXT,
                "uncertainty": {
                    "required": ["num_samples"],
                    "properties": {
                        "num_samples": {"type": "integer"},
                        "confidence_interval": {"required": ["lower", "upper", "confidence_level", "method"]},
                    },
                },
            },
        },
    },
}
RECORD = {
    "type": "object",
    "required": ["schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info",
                 "eval_library", "evaluation_results"],
    "properties": {
        "schema_version": {"const": "0.2.2"},
        "evaluation_id": {"type": "string"},
        "retrieved_timestamp": {"type": "string", "pattern": r"^\d+(\.\d+)?$"},
        "evaluation_timestamp": {"type": "string"},
        "source_metadata": {
            "required": ["source_type", "source_organization_name", "evaluator_relationship"],
            "properties": {
                "source_type": {"enum": ["documentation", "evaluation_run"]},
                "evaluator_relationship": {"enum": ["first_party", "third_party", "collaborative", "other"]},
                "additional_details": TEXT,
            },
        },
        "model_info": {"required": ["name", "id"], "properties": {"additional_details": TEXT}},
        "eval_library": {"required": ["name", "version"]},
        "evaluation_results": {"type": "array", "items": RESULT},
    },
    "additionalProperties": False,
}  # fmt: skip
"""What every_eval_ever/schemas/eval.schema.json (0.2.2) asks of the fields that are written, and what we ask."""

TASK = Metric("arc/acc", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(
        tmp_path / "w.duckdb",
        {
            "base": {"accuracy": shares([1, 1, 0, 1], TASK), "latency": numbers([0.1, 0.2], TTFT)},
            "small|<b>": {
                "accuracy": shares([1, 0, 0, 1], TASK), "energy": numbers([0.5] * 6, ENERGY, "modelled"),
                "kl": "no *parent* <img>", "fidelity": numbers([None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], KL),
            },
        },
    )  # fmt: skip


def records(store: Store, tmp_path: Path, **how: Any) -> list[dict[str, Any]]:
    path = export(store, tmp_path / "records.jsonl", what="every-eval-ever", **how)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_records_are_valid_and_carry_every_value_with_interval_and_n(store: Store, tmp_path: Path) -> None:
    found = records(store, tmp_path)
    for record in found:
        errors = [f"{e.json_path}: {e.message}" for e in Draft7Validator(RECORD).iter_errors(record)]
        assert not errors
        assert record["eval_library"]["name"] == "weighin"
    assert [(r["model_info"]["name"], len(r["evaluation_results"])) for r in found] == [
        ("base", 1), ("base", 1), ("small|<b>", 1), ("small|<b>", 1), ("small|<b>", 1),
    ]  # fmt: skip
    told = {
        (record["model_info"]["name"], result["metric_config"]["metric_id"]): result["score_details"]
        for record in found
        for result in record["evaluation_results"]
    }
    rows = store.rows("select * from scores where value is not null")
    assert len(told) == len(rows) == 5
    for row in rows:
        details = told[row["variant"], f"{row['suite']}.{row['metric']}"]
        interval = details["uncertainty"].get("confidence_interval", {})
        assert (details["score"], details["uncertainty"]["num_samples"]) == (row["value"], row["n"])
        assert (interval.get("lower"), interval.get("upper")) == (row["ci_low"], row["ci_high"])
        assert row["ci_low"] is not None or details["details"]["no_interval"] == row["ci_reason"]
    assert told["small|<b>", "energy.energy"]["details"]["not_eligible"] == "modelled"


def test_a_share_is_a_proportion_whether_its_items_stand_alone_or_not(tmp_path: Path) -> None:
    auroc, signed = Metric("auroc", "1"), Metric("drop", "1", signed=True)
    clustered = shares([1, 0, 1, 1] * 5, ACC, [f"c{i // 2}" for i in range(20)])
    samples = [*clustered, *shares([1, 0, 1], TASK), *shares([1, 0, 1], signed), Sample("all", 1.0, auroc)]
    (record,) = records(fill(tmp_path / "s.duckdb", {"base": {"accuracy": samples}}), tmp_path)
    told = {each["metric_config"]["metric_name"]: each["metric_config"] for each in record["evaluation_results"]}
    bounds = {name: (each["metric_unit"], each.get("min_score"), each.get("max_score")) for name, each in told.items()}
    assert len(record["evaluation_results"]) == 4
    assert bounds == {"acc": ("proportion", 0, 1), "drop": ("1", None, None), "auroc": ("1", None, None)}


def test_one_record_is_an_object_and_one_variant_can_be_asked_for(store: Store, tmp_path: Path) -> None:
    assert {r["model_info"]["name"] for r in records(store, tmp_path, variant="base")} == {"base"}
    listed = json.loads(export(store, tmp_path / "r.json", what="every-eval-ever").read_text())
    assert isinstance(listed, list) and len(listed) == 5
    alone = fill(tmp_path / "one.duckdb", {"base": {"accuracy": shares([1, 0], ACC)}})
    assert (
        json.loads(export(alone, tmp_path / "r.json", what="every-eval-ever").read_text())["schema_version"] == "0.2.2"
    )


def test_a_model_card_is_read_by_hugging_faces_own_library(store: Store, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    path = export(store, tmp_path / "card.md", what="model-card", variant="small|<b>")
    card = hub.ModelCard.load(path)
    found = {(r.task_name, r.metric_type): r for r in card.data.eval_results}
    assert card.data.model_name == "small|<b>"
    rows = store.rows("select * from scores where variant <> 'base' and value is not null")
    assert len(found) == len(rows) == 3
    for row in rows:
        result = found[row["suite"], row["metric"].rpartition("/")[2]]
        assert result.metric_value == row["value"] and result.metric_args["n"] == row["n"]
        assert result.metric_args.get("ci_low") == row["ci_low"] and result.metric_args["unit"] == row["unit"]
    assert found["accuracy", "acc"].dataset_name == "arc"
    assert card.data.to_dict()["model-index"][0]["results"], "and written again"


def test_the_table_of_a_card_says_what_has_no_value_and_why(store: Store, tmp_path: Path) -> None:
    body = export(store, tmp_path / "card.md", what="model-card").read_text(encoding="utf-8").split("---\n")[2]
    lines = body.splitlines()
    assert "### small\\|\\<b\\>" in lines
    assert "| kl | all | – | 0 | abstained: no \\*parent\\* \\<img\\> |" in lines
    assert "| accuracy | arc/acc | 0.500 \\[0.150, 0.850\\] | 4 |  |" in lines
    assert "| energy | energy | 500 mJ/token | 6 | modelled; no interval: all values are equal |" in lines


def test_what_cannot_be_exported_so_is_said(store: Store, tmp_path: Path) -> None:
    for name, how, message in [
        ("x.csv", {"what": "model-card"}, "no format for '.csv'. There is: .md"),
        ("x.md", {"what": "every-eval-ever"}, "There is: .json, .jsonl"),
        ("x.md", {"what": "model-card", "variant": "bas"}, "Did you mean 'base'"),
        ("x.csv", {"what": "scores", "variant": "base"}, "are always of a whole run"),
    ]:
        with pytest.raises(WeighinError, match=message):
            export(store, tmp_path / name, **how)  # type: ignore[arg-type]
        assert not (tmp_path / name).exists()


@pytest.fixture
def real(shared_data: Path, tmp_path: Path) -> tuple[Store, str]:
    """A store with a real result of lm-eval."""
    store = Store(tmp_path / "real.duckdb")
    (outcome,) = import_files(store, [shared_data / "results" / "lm_eval_0.4"])
    return store, str(outcome.run_id)


def test_an_imported_run_is_exported_as_its_tools(real: tuple[Store, str], tmp_path: Path) -> None:
    (record,) = records(real[0], tmp_path)
    assert not list(Draft7Validator(RECORD).iter_errors(record))
    assert record["eval_library"] == {"name": "lm_eval", "version": "0.4.9.2"}
    assert record["model_info"]["id"].startswith("RylanSchaeffer/") and record["evaluation_timestamp"] == "1768964384"
    assert [r["source_data"]["hf_repo"] for r in record["evaluation_results"]] == [
        "stellaathena/math_perturbed_5000", "stellaathena/math_rephrased_full",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["scores", "samples", "variants"])
def test_parquet_equals_the_store(real: tuple[Store, str], tmp_path: Path, what: Any) -> None:
    store, _ = real
    path = export(store, tmp_path / "x.parquet", what=what)
    from_json = json.loads(export(store, tmp_path / "x.json", what=what).read_text(encoding="utf-8"))
    cursor = duckdb.connect().execute("select * from read_parquet(?)", [str(path)])
    names = [column[0] for column in cursor.description or ()]
    found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert len(found) == len(from_json) > 0
    for row, other in zip(found, from_json, strict=True):
        for key, value in other.items():
            assert row[key] == value or isinstance(value, dict | list | str), key
    if what == "samples":
        kept = store.rows("select metric, item, value, low, high from samples order by metric")
        assert [{k: row[k] for k in ("metric", "item", "value", "low", "high")} for row in found] == kept
