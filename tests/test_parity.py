"""A real model on real tasks gives what lm-eval itself gives. Skipped where the real data is not there."""

import csv
import math
from pathlib import Path

import pytest

from weighin.harness.model import TransformersModel
from weighin.harness.plugin import Checkpoint
from weighin.results.records import Metric, Sample
from weighin.suites.accuracy import accuracy

TASKS = ["arc_easy", "crows_pairs", "hellaswag", "lambada_openai", "mmlu", "truthfulqa_mc1"]
ROLLING = ["tinystories_cs336", "wikitext2_test"]
ROOT = Path(__file__).resolve().parent.parent


def reduced(metric: Metric, samples: list[Sample]) -> float:
    weight = math.fsum(s.weight for s in samples)
    mean = math.fsum(s.weight * float(s.value or 0.0) for s in samples) / weight
    return math.exp(mean) if metric.reduce == "exp_mean" else mean


def measured(shared: Path, tasks: list[str], bos: bool) -> dict[str, tuple[float, int]]:
    model = TransformersModel(Checkpoint(shared / "models" / "stories260K", "stories260K"))
    files = [str(shared / "tasks" / f"local_{task}.yaml") for task in tasks]
    found: dict[Metric, list[Sample]] = {}
    for sample in accuracy(model, tasks=files, max_length=512, add_bos_token=bos):
        assert sample.metric is not None
        found.setdefault(sample.metric, []).append(sample)
    return {m.name.removeprefix("local_"): (reduced(m, samples), len(samples)) for m, samples in found.items()}


@pytest.mark.parametrize(("tasks", "bos"), [(TASKS + ROLLING, True), (["tinystories_cs336"], False)])
def test_scores_equal_lm_evals(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str], bos: bool) -> None:
    monkeypatch.chdir(ROOT)  # the tasks' data files are given from there
    found = measured(shared_data, tasks, bos)
    with (shared_data / "reference_scores.tsv").open(newline="") as file:
        rows = [
            r for r in csv.DictReader(file, delimiter="\t") if r["task"] in tasks and r["add_bos_token"] == str(bos)
        ]
    assert len(rows) == len([name for name in found if not name.endswith("/gold_margin")])  # lm-eval has none
    for row in rows:
        value, n = found[f"{row['task']}/{row['metric']}"]
        wanted = float(row["value"])
        perplexity = "perplexity" in row["metric"] or row["metric"] in ("bits_per_byte", "likelihood_diff")
        assert n == int(row["n"])
        assert value == pytest.approx(wanted, **({"rel": 1e-4} if perplexity else {"abs": 1e-6})), row
