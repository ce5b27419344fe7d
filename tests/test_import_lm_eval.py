"""Results of lm-eval: real files, files that lm-eval writes here and now, and layouts of every age."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.stores import fill, shares
from weighin.results.compare import compare
from weighin.results.importing import Outcome, import_files
from weighin.results.statistics import wilson
from weighin.results.store import Store

DATE = "2026-01-02T03-04-05.678901"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "w.duckdb")


def taken(store: Store, *paths: Path, **how: Any) -> list[Outcome]:
    return list(import_files(store, list(paths), **how))


def scores(store: Store, run: str | None) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in store.rows("select * from scores where run_id = ?", [run])}


def write(folder: Path, results: dict[str, Any], samples: dict[str, list[dict[str, Any]]], date: str = DATE) -> Path:
    """A results file as lm-eval 0.4.9 writes it, and its samples files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"results_{date}.json"
    told = {
        "versions": dict.fromkeys(results["results"], 1.0),
        "config": {"model": "hf", "model_args": "pretrained=org/näme,dtype=float32", "limit": None},
        "lm_eval_version": "0.4.9",
        "date": 1767322800.5,
        **results,
    }
    path.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    for task, rows in samples.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"samples_{task}_{date}.jsonl").write_text(lines, encoding="utf-8")
    return path


def sample(i: int, filtered: str = "none", **metrics: Any) -> dict[str, Any]:
    return {
        "doc_id": i, "doc": {"question": f"wie heißt Nr. {i}?", "gold": i % 4}, "target": str(i % 4),
        "arguments": {f"gen_args_{k}": {"arg_0": f"Q: {i}", "arg_1": choice} for k, choice in enumerate((" a", " b"))},
        "resps": [[["-1.0", "False"]]], "filtered_resps": [["-1.0", "False"]], "filter": filtered,
        "metrics": list(metrics), "doc_hash": "d", "prompt_hash": "p", "target_hash": "t", **metrics,
    }  # fmt: skip


# -- real files ------------------------------------------------------------------------------------------------------


def test_a_real_result_whose_samples_are_not_all_there(shared_data: Path, store: Store) -> None:
    folder = shared_data / "results" / "lm_eval_0.4"
    (outcome,) = taken(store, folder)
    assert outcome.fresh and outcome.origin == "lm-eval 0.4.9.2"
    assert "holds 10 of 5,000 items" in outcome.notes[0]
    stated = json.loads(next(folder.glob("results_*.json")).read_text(encoding="utf-8"))["results"]
    for metric, row in scores(store, outcome.run_id).items():
        task = metric.partition("/")[0]
        assert row["value"] == stated[task]["exact_match,none"] and row["n"] == 5000 and row["source"] == "imported"
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(round(row["value"] * 5000), 5000))
    machine = store.rows("select * from machines")[0]
    assert machine["cores"] == 128 and machine["ram_bytes"] is None and machine["gpu"] == "8 × NVIDIA A100-SXM4-80GB"
    assert store.rows("select started_at from runs")[0]["started_at"].year == 2026


def test_real_results_of_version_3_have_every_figure_with_its_interval(shared_data: Path, store: Store) -> None:
    path = shared_data / "results" / "pythia" / "pythia-70m" / "zero-shot" / "70m_step143000.json"
    (outcome,) = taken(store, path)
    assert outcome.labels == ("EleutherAI/pythia-v1.1-70m@step143000",)
    found = scores(store, outcome.run_id)
    stated = json.loads(path.read_text(encoding="utf-8"))["results"]
    wanted = {f"{t}/{m}": v for t, row in stated.items() for m, v in row.items() if not m.endswith("_stderr")}
    assert {metric: row["value"] for metric, row in found.items()} == wanted
    for metric, row in found.items():
        task, _, label = metric.partition("/")
        error = stated[task][f"{label}_stderr"]
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        if error and row["n"] >= 100:  # Wilson's limits are another thing for few items
            assert row["ci_high"] - row["ci_low"] == pytest.approx(3.92 * error, rel=0.06), metric
    # the standard error gives the number of items away: PIQA's validation set has 1,838
    assert found["piqa/acc"]["n"] == 1838 and found["lambada_openai/ppl"]["n"] == 5153
    assert found["lambada_openai/ppl"]["better"] == "lower"


def test_a_second_import_adds_nothing(shared_data: Path, store: Store) -> None:
    path = shared_data / "results" / "lm_eval_0.4"
    first, again = taken(store, path)[0], taken(store, path, label="other")[0]
    assert again.run_id == first.run_id and first.fresh and not again.fresh
    assert store.rows("select count(*) as n from runs") == [{"n": 1}]
    assert store.rows("select label from labels")[0]["label"].startswith("RylanSchaeffer")


# -- what lm-eval writes ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that lm-eval itself wrote: multiple choice, generation and perplexity, with samples."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from weighin.suites._lm_eval import OURS

    out, tasks = tmp_path_factory.mktemp("lm_eval"), tmp_path_factory.mktemp("tasks")
    rows = [
        {"q": f"Where does heron {i} sleep?", "a": "on the roof", "text": f"stone {i} by the river"} for i in range(6)
    ]
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tasks / "rows.jsonl"}}}}}
test_split: test
num_fewshot: 0
"""
    (tasks / "said.yaml").write_text(
        f'task: said{common}output_type: generate_until\ndoc_to_text: "{{{{q}}}}"\ndoc_to_target: "{{{{a}}}}"\n'
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n'
    )
    (tasks / "read.yaml").write_text(
        f'task: read{common}output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{{{text}}}}"\n'
        "metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]\n"
    )
    manager = TaskManager(include_path=[str(tasks), str(OURS)], include_defaults=False)
    args = f"pretrained={pico_dir},dtype=float32"
    tracker = EvaluationTracker(output_path=str(out))
    with contextlib.chdir(OURS):  # its tasks find their data from there
        results = lm_eval.simple_evaluate(
            "hf", model_args=args, tasks=["world_facts", "said", "read"], task_manager=manager, device="cpu",
            limit=12, batch_size=8, log_samples=True, bootstrap_iters=100, evaluation_tracker=tracker,
        )  # fmt: skip
    assert results is not None
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return out


def test_samples_make_up_what_lm_eval_states(written: Path, store: Store) -> None:
    (outcome,) = taken(store, written)
    assert not outcome.notes, "every figure is made up by its samples"
    (path,) = written.rglob("results_*.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    found = scores(store, outcome.run_id)
    for task, row in data["results"].items():
        for key, value in row.items():
            metric, _, filtered = key.partition(",")
            if filtered and not metric.endswith("_stderr"):
                mine = found.pop(f"{task}/{metric}")
                assert mine["value"] == pytest.approx(value, rel=1e-6), key
                assert mine["unit"] == ("bit/byte" if metric == "bits_per_byte" else "1")
    assert not found, "and there is nothing else"
    assert store.rows("select cpu, cores from machines")[0]["cores"], "as the environment report has it"
    units = store.rows("select distinct metric, reduce from metrics where reduce = 'exp_mean' order by metric")
    assert [row["metric"] for row in units] == ["read/byte_perplexity", "read/word_perplexity"]


def test_an_imported_item_is_ours_and_is_compared_only_when_waived(
    written: Path, pico_dir: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weighin.harness import Checkpoint
    from weighin.harness.model import TransformersModel
    from weighin.suites import _lm_eval
    from weighin.suites.accuracy import accuracy

    monkeypatch.setattr(_lm_eval, "subset", lambda task, limit, seed: list(range(limit)))  # lm-eval takes the first
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    samples = list(accuracy(model, tasks=["world_facts"], limit=12))
    (outcome,) = taken(store, written, label="theirs")
    fill(store.path, {"base": {"accuracy": samples}})
    refused = compare(store, "base", f"{outcome.run_id}/theirs", run="r1")
    assert not refused.comparisons
    assert {r.metric: r.fields for r in refused.refusals}["world_facts/acc"] == ("origin",)
    waived = compare(store, "base", f"{outcome.run_id}/theirs", run="r1", waive=["origin"])
    (found,) = [c for c in waived.comparisons if c.metric == "world_facts/acc"]
    assert found.n == 12 and found.drop == 0 and waived.waived == ("origin",), "the same model on the same items"


# -- layouts ----------------------------------------------------------------------------------------------------------


def test_groups_filters_and_missing_errors(tmp_path: Path, store: Store) -> None:
    rows = [
        sample(i, f, exact_match=float(i % (2 if f == "strict" else 3) == 0))
        for f in ("strict", "loose")
        for i in range(6)
    ]
    results = {
        "results": {
            "group": {" ": " ", "alias": "group", "acc,none": 0.5, "acc_stderr,none": "N/A"},
            "said": {
                "alias": " - said", "exact_match,strict": 0.5, "exact_match_stderr,strict": 0.22,
                "exact_match,loose": 1 / 3, "exact_match_stderr,loose": 0.21,
            },
            "chosen": {"acc,none": 0.25, "acc_stderr,none": "N/A", "bleu,none": 12.5, "bleu_stderr,none": "N/A"},
        },
        "groups": {"group": {"acc,none": 0.5}, "only here": {"acc,none": 0.75, "acc_stderr,none": 0.1}},
        "group_subtasks": {"group": ["said", "chosen"]},
        "n-samples": {"said": {"original": 6, "effective": 6}, "chosen": {"original": 8, "effective": 8}},
        "higher_is_better": {"said": {"exact_match": True}, "chosen": {"acc": True, "bleu": True}},
    }  # fmt: skip
    (outcome,) = taken(store, write(tmp_path / "org__näme", results, {"said": rows}))
    found = scores(store, outcome.run_id)
    assert outcome.labels == ("org/näme",)
    assert found["said/exact_match,strict"]["value"] == 0.5 and found["said/exact_match,loose"]["value"] == 1 / 3
    assert found["said/exact_match,strict"]["n"] == 6 and found["said/exact_match,strict"]["ci_method"] == "Wilson"
    assert found["group/acc"]["n"] == 14, "a group's items are those of its tasks"
    assert (found["chosen/acc"]["ci_low"], found["chosen/acc"]["ci_high"]) == pytest.approx(wilson(2, 8))
    assert found["chosen/bleu"]["ci_reason"] == "the file states no error" and found["chosen/bleu"]["ci_low"] is None
    assert found["only here/acc"]["ci_high"] == pytest.approx(0.75 + 1.96 * 0.1, abs=1e-3)


def test_corpus_metrics_and_samples_that_tell_another_story(tmp_path: Path, store: Store) -> None:
    rows = [sample(i, acc=float(i < 3), f1=[i % 2, 1], inst=[True, False]) for i in range(6)]
    results = {"results": {"t": {"acc,none": 0.9, "f1,none": 0.66, "inst,none": 0.5, "acc_stderr,none": 0.05}}}
    (outcome,) = taken(store, write(tmp_path, results, {"t": rows}))
    found = scores(store, outcome.run_id)
    assert found["t/acc"]["value"] == 0.9, "the file's own figure, not what its samples come to"
    assert found["t/f1"]["value"] == 0.66 and found["t/f1"]["ci_low"] is None
    assert "t: acc, f1, inst is kept as the figure" in outcome.notes[0] and "no mean of its samples" in outcome.notes[0]


def test_equal_documents_and_perplexities(tmp_path: Path, store: Store) -> None:
    rows = [{**sample(0), "metrics": ["ppl", "acc"], "ppl": -float(i), "acc": float(i)} for i in range(2)]
    results = {"results": {"t": {"ppl,none": math.exp(0.5), "acc,none": 0.5}}}
    (outcome,) = taken(store, write(tmp_path, results, {"t": rows}))
    items = store.rows("select item from samples where metric = 't/acc' order by item")
    assert not outcome.notes and items[1]["item"] == items[0]["item"] + "#2"
    assert scores(store, outcome.run_id)["t/ppl"]["value"] == pytest.approx(math.exp(0.5))


def test_several_results_in_a_tree_each_find_their_own_samples(tmp_path: Path, store: Store) -> None:
    for i, date in enumerate((DATE, DATE.replace("04-05", "04-06"))):
        rows = [sample(k, acc=float(k <= i)) for k in range(8)]
        write(tmp_path / "a" / "model", {"results": {"t_1": {"acc,none": (i + 1) / 8}}}, {"t_1": rows}, date)
    write(tmp_path / "b", {"results": {"t_1": {"acc,none": 0.5}}}, {})
    outcomes = taken(store, tmp_path)
    assert [o.notes for o in outcomes] == [(), (), ()] and len({o.run_id for o in outcomes}) == 3
    assert [scores(store, o.run_id)["t_1/acc"]["n"] for o in outcomes] == [8, 8, 1]


def test_the_layout_of_0_4_0_where_lines_name_no_filter(tmp_path: Path, store: Store) -> None:
    def old(i: int, right: bool) -> dict[str, Any]:
        return {"doc_id": i, "doc": {"q": i}, "target": "x", "arguments": [["Q", {}]], "resps": [["a"]],
                "filtered_resps": ["a"], "em": float(right)}  # fmt: skip

    rows = [old(i, i == 0) for i in range(5)] + [old(i, i < 3) for i in range(5)]
    (tmp_path / "results.json").write_text(
        json.dumps({
            "results": {"t": {"em,first": 0.2, "em,second": 0.6}}, "configs": {"t": {}}, "versions": {"t": 1},
            "config": {"model": "hf", "model_args": {"pretrained": "org/m"}},
        })
    )  # fmt: skip
    (tmp_path / "pretrained__org__m_t.jsonl").write_text(json.dumps(rows, indent=2))
    (outcome,) = taken(store, tmp_path / "results.json")
    found = scores(store, outcome.run_id)
    assert not outcome.notes and outcome.labels == ("org/m",)
    assert (found["t/em,first"]["value"], found["t/em,second"]["value"]) == (0.2, 0.6) and found["t/em,first"]["n"] == 5


def test_samples_within_the_results_themselves(tmp_path: Path, store: Store) -> None:
    """As `json.dump(lm_eval.simple_evaluate(...))` writes them, where requests are plain lists."""
    rows = [{**sample(i, acc=float(i < 2)), "arguments": [["Q", " a"], ["Q", " b"]]} for i in range(8)]
    (outcome,) = taken(store, write(tmp_path, {"results": {"t": {"acc,none": 0.25}}, "samples": {"t": rows}}, {}))
    assert scores(store, outcome.run_id)["t/acc"]["n"] == 8 and not outcome.notes
    assert store.rows("select detail from samples limit 1")[0]["detail"]["choices"] == [" a", " b"]


def test_imports_of_one_tool_compare_where_the_task_is_alike(tmp_path: Path, store: Store) -> None:
    for model, right in (("a", 3), ("b", 5)):
        rows = [sample(k, acc=float(k < right)) for k in range(8)]
        results = {
            "results": {"t": {"acc,none": right / 8}, model: {"acc,none": 0.5}},
            "config": {"model": "hf", "model_args": f"pretrained={model}"},
            "task_hashes": {"t": "same", model: model},
        }
        write(tmp_path / model, results, {"t": rows})
    a, b = (o.run_id for o in taken(store, tmp_path))
    found = compare(store, f"{a}/a", f"{b}/b")
    assert [(c.metric, c.drop) for c in found.comparisons] == [("t/acc", -0.25)]
    write(tmp_path / "c", {**results, "task_hashes": {"t": "other prompts"}}, {"t": rows})
    (c,) = (o.run_id for o in taken(store, tmp_path / "c"))
    refused = compare(store, f"{a}/a", f"{c}/b").refusals
    assert {r.metric: r.fields for r in refused}["t/acc"] == ("task.items",)


def test_a_broken_samples_file_leaves_the_store_as_it_was(tmp_path: Path, store: Store) -> None:
    fill(store.path, {"base": {"accuracy": shares([1, 0])}})
    before = store.rows("select (select count(*) from runs) as runs, (select count(*) from samples) as samples")
    path = write(tmp_path / "x", {"results": {"t": {"acc,none": 1.0}}}, {"t": [sample(0, acc=1.0)]})
    samples = next(path.parent.glob("samples_*"))
    samples.write_text(samples.read_text() + '{"doc_id": 1, "doc": {"q', encoding="utf-8")
    (outcome,) = taken(store, path.parent)
    assert outcome.error is not None and f"{samples}:2: is not whole JSON" in outcome.error
    after = store.rows("select (select count(*) from runs) as runs, (select count(*) from samples) as samples")
    assert after == before and store.latest_run() == "r1"
