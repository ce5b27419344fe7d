"""Accuracy: the sample that a limit draws, and averages over tasks that count every task alike."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.suites._lm_eval import Options, load_tasks, subset, task_file
from weighin.suites._macro import macro, task_mean
from weighin.suites._oracle import Oracle
from weighin.suites.accuracy import accuracy


class Sorted:
    """A task whose documents are sorted by their answer, as many published ones are."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.eval_docs = [{"id": f"{key}{i}", "gold": key} for key, count in counts.items() for i in range(count)]

    def doc_to_target(self, row: dict[str, Any]) -> str:
        return str(row["gold"])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 200), st.integers(0, 3))
def test_a_limit_keeps_the_shares_of_the_answers(sizes: list[int], limit: int, seed: int) -> None:
    task = Sorted({f"answer {i}": size for i, size in enumerate(sizes)})
    chosen = subset(task, limit, seed)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(limit, sum(sizes))
    if len(sizes) <= limit:
        found = Counter(task.eval_docs[place]["gold"] for place in chosen)
        for i, size in enumerate(sizes):
            # Each answer is taken when half of what it stands for is due, so each may be half a document off.
            assert abs(found[f"answer {i}"] - len(chosen) * size / sum(sizes)) <= max(1, len(sizes) / 2)
    assert set(subset(task, max(1, limit // 2), seed)) <= set(chosen)
    assert subset(task, limit, seed) == chosen


def test_another_seed_draws_others() -> None:
    task = Sorted({"a": 100, "b": 100})
    assert subset(task, 20, 0) != subset(task, 20, 1)


def test_texts_without_answers_are_drawn_evenly() -> None:
    assert len(subset(Sorted({f"text {i}": 1 for i in range(50)}), 7, 0)) == 7


def test_a_macro_average_by_hand() -> None:
    first, second = [1.0, 1.0, 0.0, 0.0], [1.0] * 9 + [0.0]
    means = [task_mean(values, [str(i) for i in range(len(values))]) for values in (first, second)]
    assert [m.mean for m in means] == [0.5, 0.9]
    assert means[0].variance == pytest.approx(0.25 / 3) and means[1].variance == pytest.approx(0.09 / 9)
    value, low, high = macro(means)
    total = 0.25 / 3 + 0.01
    assert value == pytest.approx(0.7) and low is not None and high is not None
    assert (high - low) / 2 > 1.96 * math.sqrt(total) / 2, "Student's t is wider"
    assert macro([task_mean([1.0], ["a"]), means[1]])[1:] == (None, None)


def test_clusters_widen_a_tasks_error() -> None:
    values = [1.0, 1.0, 0.0, 0.0] * 5
    alone = task_mean(values, [str(i) for i in range(20)]).variance
    grouped = task_mean(values, [str(i // 2) for i in range(20)]).variance
    assert alone and grouped and grouped > 1.9 * alone


def test_a_group_of_tasks_has_an_average_of_its_own(tmp_path: Path) -> None:
    """Two tasks of unlike size: the group's value is the mean of theirs, not of their documents."""
    sizes = {"small": 4, "large": 12}
    beliefs: dict[str, dict[str, float]] = {}
    for name, size in sizes.items():
        rows: list[dict[str, Any]] = [
            {"q": f"Question: {name} {i}?\nAnswer:", "c": [" baker", " potter"]} for i in range(size)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        right = 4 if name == "small" else 3
        beliefs |= {
            r["q"]: dict(zip(r["c"], (0.6, 0.3) if i < right else (0.3, 0.6), strict=True)) for i, r in enumerate(rows)
        }
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, file=tmp_path / f"{name}.jsonl"))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [small, large]\n")
    samples = list(accuracy(Oracle(beliefs), tasks=[str(tmp_path / "both.yaml")]))
    found = [s for s in samples if s.metric and s.metric.name == "both/acc"]
    assert [s.value for s in found] == [pytest.approx((1 + 0.25) / 2)] and found[0].weight == 16
    margins = [s for s in samples if s.metric and s.metric.name == "large/gold_margin"]
    assert {s.metric.name for s in samples if s.metric} - {"small/gold_margin"} == {
        "small/acc", "large/acc", "both/acc", "large/gold_margin",
    }  # fmt: skip
    assert sorted(s.value or 0.0 for s in margins) == pytest.approx([-math.log(2)] * 9 + [math.log(2)] * 3, abs=1e-6)


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_target: 0
doc_to_choice: c
target_delimiter: ""
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_perplexity_says_its_windows() -> None:
    model = TransformersModel(Checkpoint(reference_path("draft"), "draft"), {}, Loading(dtype="float32"))
    first = next(iter(accuracy(model, tasks=["world_heldout"], limit=2)))
    assert {name: first.detail[name] for name in ("window", "stride", "first_token")} == {
        "window": 512,
        "stride": 512,
        "first_token": "<s>",
    }
    assert load_tasks(["world_heldout"], Options())["groups"] == {}


@pytest.mark.parametrize(
    ("task", "file"),
    [("arc_easy", "arc/arc_easy.yaml"), ("ai2_arc", "arc/"), ("mmlu", "mmlu/default/_mmlu.yaml")],
)
def test_a_name_of_lm_evals_finds_its_file(task: str, file: str) -> None:
    assert f"lm_eval/tasks/{file}" in task_file(task).as_posix()


def test_only_groups_and_tags_need_an_index_of_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Manager:
        def __init__(self, include_path: Any, include_defaults: bool) -> None:
            asked.append(include_defaults)

        def load(self, specs: list[Any]) -> dict[str, Any]:
            return {"tasks": {}, "specs": specs}

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Manager)
    assert load_tasks(["arc_easy", "world_facts"], Options())["specs"][0].endswith("arc/arc_easy.yaml")
    assert load_tasks(["ai2_arc"], Options())["specs"] == ["ai2_arc"]
    assert asked == [False, True]
