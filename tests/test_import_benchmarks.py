"""Results of optimum-benchmark and pytest-benchmark: real files, and what pytest-benchmark writes here and now."""

import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weighin.results.compare import compare
from weighin.results.import_optimum_benchmark_names import column, in_base, labels
from weighin.results.importing import Outcome, import_files
from weighin.results.statistics import clustered_mean
from weighin.results.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "w.duckdb")


def taken(store: Store, *paths: Path, **how: Any) -> list[Outcome]:
    return list(import_files(store, list(paths), **how))


def scores(store: Store, run: str | None, variant: str = "%") -> dict[tuple[str, str], dict[str, Any]]:
    rows = store.rows("select * from scores where run_id = ? and variant like ?", [run, variant])
    return {(row["variant"], row["metric"]): row for row in rows}


# -- optimum-benchmark -----------------------------------------------------------------------------------------------


def test_a_real_report_in_base_units(shared_data: Path, store: Store) -> None:
    folder = shared_data / "results" / "optimum-benchmark" / "running-llamas" / "artifacts" / "Llama-65b"
    outcomes = {o.path.name: o for o in taken(store, folder)}
    with (folder / "full_report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = scores(store, outcomes["full_report.csv"].run_id)
    assert len(outcomes["full_report.csv"].labels) == len(rows) == len({variant for variant, _ in found})
    for label, row in zip(outcomes["full_report.csv"].labels, rows, strict=True):
        assert row["model"] in label and row["experiment_name"] in label
        latency, memory = found[label, "decode.latency"], found[label, "forward.max_memory_used"]
        assert (latency["value"], latency["unit"], latency["better"]) == (float(row["decode.latency(s)"]), "s", "lower")
        assert memory["value"] == float(row["forward.max_memory_used(MB)"]) * 1e6 and memory["unit"] == "B"
        throughput = found[label, "generate.throughput"]
        assert throughput["value"] == float(row["generate.throughput(tokens/s)"]) and throughput["unit"] == "token/s"
        assert latency["ci_reason"] == "the file states no error" and latency["source"] == "imported"
        assert (latency["suite"], memory["suite"]) == ("latency", "memory")
    short = scores(store, outcomes["short_report.csv"].run_id)
    latencies = sorted(row["value"] for (_, metric), row in short.items() if metric == "decode.latency")
    assert latencies == sorted(float(row["decode.latency(s)"]) for row in rows)
    machine = store.rows("select * from machines where ram_bytes is not null")[0]
    assert machine["cores"] == 128 and machine["ram_bytes"] == 540_671_000_000 and "A100" in machine["gpu"]


def report(values: list[float], *, unstated: str = "", **stated: Any) -> dict[str, Any]:
    n = len(values)
    latency = {"unit": "s", "values": values, "count": n, "mean": statistics.fmean(values),
               "stdev": statistics.pstdev(values)} | stated  # fmt: skip
    latency.pop(unstated, None)
    return {
        "load": {"memory": None, "latency": None, "throughput": None, "energy": None, "efficiency": None},
        "decode": {
            "memory": {"unit": "MB", "max_ram": 1000.5, "max_reserved": None},
            "latency": latency,
            "throughput": {"unit": "tokens/s", "value": 21.5},
            "energy": {"unit": "kWh", "cpu": 1e-6, "ram": 0.0, "gpu": 2e-6, "total": 3e-6},
            "efficiency": {"unit": "tokens/kWh", "value": 3.6e6},
        },
    }


CONFIG = {
    "name": "x",
    "backend": {"name": "pytorch", "model": "org/small", "torch_dtype": "float16", "device": "cuda"},
    "scenario": {"name": "inference", "input_shapes": {"batch_size": 2}},
    "launcher": {"name": "process"},
    "environment": {"cpu": " A CPU", "cpu_count": 8, "cpu_ram_mb": 16000.5, "gpu": ["T4", "T4"], "system": "Linux",
                    "optimum_benchmark_version": "0.5.0", "transformers_version": "4.45.2"},
}  # fmt: skip
VALUES = [0.5, 0.52, 0.49, 0.55, 0.51, 0.5]


def test_json_reports_and_their_flat_form_say_the_same(tmp_path: Path, store: Store) -> None:
    apart, one, flat = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (apart, one, flat):
        folder.mkdir()
    (apart / "benchmark_report.json").write_text(json.dumps(report(VALUES)))
    (apart / "benchmark_config.json").write_text(json.dumps(CONFIG))
    (one / "benchmark.json").write_text(json.dumps({"config": CONFIG, "report": report(VALUES)}))
    row = {f"config.{k}": v for k, v in flattened(CONFIG).items()} | {
        f"report.{k}": v for k, v in flattened(report(VALUES)).items()
    }
    with (flat / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    first, again, table = taken(store, apart, one, flat)
    assert first.fresh and not again.fresh and again.run_id == first.run_id, "the same report in another file"
    a, c = (scores(store, run) for run in (first.run_id, table.run_id))
    assert {key: (row["value"], row["ci_low"]) for key, row in a.items()} == {
        key: (row["value"], row["ci_low"]) for key, row in c.items()
    }
    found = {metric: row for (_, metric), row in a.items()}
    mean = clustered_mean(VALUES)
    assert (
        found["decode.latency"]["value"] == pytest.approx(statistics.fmean(VALUES))
        and found["decode.latency"]["n"] == 6
    )
    limits = (found["decode.latency"]["ci_low"], found["decode.latency"]["ci_high"])
    assert limits == pytest.approx(mean.interval(), rel=1e-3)
    assert found["decode.memory.max_ram"]["value"] == 1000.5e6
    assert found["decode.energy.total"]["value"] == pytest.approx(10.8) and found["decode.energy.total"]["unit"] == "J"
    assert found["decode.energy.total"]["eligible_reason"] == "modelled"
    assert found["decode.efficiency"]["value"] == pytest.approx(1.0) and found["decode.efficiency"]["unit"] == "token/J"
    assert first.labels == ("org/small",) and first.origin == "optimum-benchmark 0.5.0"
    machine = store.rows("select * from machines")[0]
    assert (machine["cpu"], machine["cores"], machine["gpu"]) == ("A CPU", 8, "2 × T4")


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in flattened(item, f"{prefix}.{key}".lstrip(".")).items()}


def test_a_report_without_its_values_has_the_limits_of_its_deviation(tmp_path: Path, store: Store) -> None:
    for name, data in (
        ("all", report(VALUES)),
        ("no values", report(VALUES, unstated="values")),
        ("odd", report(VALUES, mean=0.7)),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"config": CONFIG, "report": data}))
    runs = {o.path.stem: o for o in taken(store, tmp_path)}
    rows = {name: scores(store, o.run_id)["org/small", "decode.latency"] for name, o in runs.items()}
    assert rows["no values"]["n"] == 6
    for limit in ("value", "ci_low", "ci_high"):
        assert rows["no values"][limit] == pytest.approx(rows["all"][limit], rel=1e-3)
    assert rows["odd"]["value"] == 0.7 and "0.7 is stated and kept" in runs["odd"].notes[0]


def test_configurations_that_differ_are_not_compared(tmp_path: Path, store: Store) -> None:
    for size in (2, 4):
        config = {**CONFIG, "scenario": {"name": "inference", "input_shapes": {"batch_size": size}}}
        (tmp_path / f"{size}.json").write_text(json.dumps({"config": config, "report": report(VALUES)}))
    a, b = (o.run_id for o in taken(store, tmp_path))
    refused = compare(store, f"{a}/org/small", f"{b}/org/small")
    assert not refused.comparisons
    assert {f for r in refused.refusals for f in r.fields} == {"setup.scenario.input_shapes.batch_size"}


@pytest.mark.parametrize(
    ("title", "metric", "value", "unit", "better", "suite"),
    [
        ("forward.latency(s)", "forward.latency", 1.0, "s", "lower", "latency"),
        ("Prefill Latency (ms)", "prefill.latency", 1e-3, "s", "lower", "latency"),
        ("Generate Max Memory Allocated (MB)", "generate.max_memory_allocated", 1e6, "B", "lower", "memory"),
        ("per_token.latency(s)", "per_token.latency", 1.0, "s", "lower", "latency"),
        ("Forward Throughput (samples/s)", "forward.throughput", 1.0, "sample/s", "higher", "latency"),
        ("generate.energy_consumption(kWh/token)", "generate.energy_consumption", 3.6e6, "J/token", "lower", "energy"),
        (
            "forward.carbon_emissions(kgCO2eq/sample)",
            "forward.carbon_emissions",
            1.0,
            "kgCO2eq/sample",
            "lower",
            "energy",
        ),
        ("decode.efficiency(tokens/kWh)", "decode.efficiency", 1 / 3.6e6, "token/J", "higher", "energy"),
        ("decode.energy(Wh)", "decode.energy", 3600.0, "J", "lower", "energy"),
        ("peak (GiB)", "peak", 2.0**30, "B", "lower", "memory"),
        ("gpu.use(%)", "gpu.use", 0.01, "1", "none", "benchmark"),
    ],
)
def test_columns(title: str, metric: str, value: float, unit: str, better: str, suite: str) -> None:
    found = column(title)
    assert found is not None and found.unit is not None
    meaning, factor, where = in_base(found.metric, found.unit)
    assert (meaning.name, factor, meaning.unit) == (metric, pytest.approx(value), unit)
    assert (meaning.better, where, meaning.runtime) == (better, suite, True)


def test_what_is_no_measurement() -> None:
    for title in ("model", "backend.version", "Num GPUs", "auroc", "config.backend.name", "", "(s)", "Batch Size (n)"):
        assert column(title) is None, title


def test_rows_are_told_apart_by_as_little_as_it_takes() -> None:
    rows = [{"model": "m", "name": "x", "batch_size": b, "dtype": d} for b in "12" for d in ("f", "g")]
    assert labels(rows, Path("r.csv")) == ["m batch_size=1 dtype=f", "m batch_size=1 dtype=g", "m batch_size=2 dtype=f",
                                           "m batch_size=2 dtype=g"]  # fmt: skip
    assert labels([{"a": "1"}, {"a": "1"}], Path("r.csv")) == ["r", "r #2"]
    assert labels([{}], Path("sweep_batch(1)/0/inference_results.csv")) == ["sweep_batch(1)"]


def test_rows_that_failed_are_left_out_and_counted(tmp_path: Path, store: Store) -> None:
    """As in the tables of the llm-perf leaderboard: a row that ran out of memory has a traceback and no figure."""
    path = tmp_path / "perf.csv"
    header = "config.name,config.backend.model,report.prefill.latency.unit,report.prefill.latency.mean,report.traceback"
    path.write_text(f'{header}\nbf16,org/a,s,0.25,\n4bit,org/a,,,"CUDA out of\nmemory"\nbf16,org/b,s,0.5,\n')
    (outcome,) = taken(store, path)
    assert outcome.labels == ("org/a bf16", "org/b bf16") and outcome.notes == (
        "1 of 3 rows hold no number and are left out",
    )
    assert [row["value"] for row in scores(store, outcome.run_id).values()] == [0.25, 0.5]
    assert "traceback" not in str(store.rows("select protocol, params from evaluations"))


def test_other_tables_are_none_of_ours(shared_data: Path, store: Store) -> None:
    outcomes = taken(store, shared_data / "results" / "mink-plus-plus")
    assert [o.error for o in outcomes] == [
        f"{shared_data / 'results' / 'mink-plus-plus'}: holds no file of inspect, lm-eval, pytest-benchmark, "
        "optimum-benchmark"
    ]
    assert not store.exists()


# -- pytest-benchmark ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What pytest-benchmark itself writes: its rounds by `--benchmark-json`, statistics by `--benchmark-save`."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.parametrize('n', [10, 1000])\ndef test_sum(benchmark, n):\n"
        "    benchmark.extra_info['note'] = 'ü'\n    benchmark.pedantic(sum, (range(n),), rounds=7, iterations=3)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json", "raw.json",
               "--benchmark-save", "saved", "--benchmark-storage", "store", "test_it.py"]  # fmt: skip
    # the plugin measures nothing where it believes itself among several workers
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=alone)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {"raw": folder / "raw.json", "saved": next((folder / "store").rglob("*.json"))}


@pytest.mark.parametrize("how", ["raw", "saved"])
def test_rounds_and_statistics_come_to_the_same(written: dict[str, Path], store: Store, how: str) -> None:
    data = json.loads(written[how].read_text())
    (outcome,) = taken(store, written[how])
    found = {metric: row for (_, metric), row in scores(store, outcome.run_id).items()}
    for entry in data["benchmarks"]:
        assert ("data" in entry["stats"]) == (how == "raw")
        row = found[entry["fullname"]]
        assert (row["unit"], row["better"], row["n"]) == ("s", "lower", 7)
        assert row["value"] == pytest.approx(entry["stats"]["mean"], rel=1e-9)
        half = 2.446912 * entry["stats"]["stddev"] / 7**0.5
        assert row["ci_high"] - row["value"] == pytest.approx(half, rel=1e-3)
    assert outcome.origin == f"pytest-benchmark {data['version']}"
    machine = store.rows("select * from machines")[0]
    assert machine["cores"] == data["machine_info"]["cpu"]["count"] and machine["ram_bytes"] is None
    assert machine["machine_key"].startswith("imported-"), "even this very machine, told of by a file, is not ours"


def test_one_round_is_one_value(written: dict[str, Path], store: Store, tmp_path: Path) -> None:
    data = json.loads(written["raw"].read_text())
    for entry in data["benchmarks"]:
        entry["stats"] = {"mean": 0.25, "stddev": 0, "rounds": 1, "min": 0.25, "max": 0.25}
    (tmp_path / "one.json").write_text(json.dumps(data))
    (outcome,) = taken(store, tmp_path / "one.json")
    rows = scores(store, outcome.run_id).values()
    assert {(row["value"], row["ci_low"], row["ci_reason"]) for row in rows} == {(0.25, None, "fewer than 5 values")}
