"""The suite reliability: maths by hand, invariants, lm-eval's own figures."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Abstain, Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.suites import _calibration as calibration
from weighin.suites._choices import questions, scores
from weighin.suites._draw import agreement, drawn
from weighin.suites._lm_eval import Options
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean
from weighin.suites.accuracy import accuracy
from weighin.suites.reliability import reliability

pytestmark = pytest.mark.usefixtures("one_thread")
OUTCOMES = st.lists(st.tuples(st.floats(0.25, 1.0), st.booleans()), min_size=20, max_size=120)


@pytest.fixture(scope="module")
def reference() -> TransformersModel:
    return TransformersModel(Checkpoint(reference_path("base"), "base"), loading=Loading("float32"))


def test_scores_by_hand() -> None:
    assert calibration.softmax([0.0, math.log(3)]) == pytest.approx([0.25, 0.75])
    assert calibration.brier([0.25, 0.75], 1) == pytest.approx(0.125)
    sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration.aurc(sure, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert calibration.excess_aurc(sure, right) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4 - 1 / 16)
    assert calibration.accuracy_at(0.5, sure, right) == 0.5
    assert calibration.accuracy_at(1.0, sure, right) == 0.75
    one_bin = np.zeros(4)
    assert calibration.squared_error(sure, right, one_bin) == pytest.approx(0.0 - 0.75 * 0.25 / 3)
    assert calibration.naive_ece(np.array([0.95, 0.95]), np.array([1.0, 0.0])) == pytest.approx(0.45)


@given(OUTCOMES)
def test_invariants(rows: list[tuple[float, bool]]) -> None:
    sure, right = np.array([s for s, _ in rows]), np.array([float(r) for _, r in rows])
    order = np.random.default_rng(0).permutation(len(rows))
    assert calibration.aurc(sure, right) == pytest.approx(calibration.aurc(sure[order], right[order]))
    assert calibration.excess_aurc(sure, right) >= -1e-12
    assert calibration.accuracy_at(1.0, sure, right) == pytest.approx(right.mean())
    assert 0 <= calibration.naive_ece(sure, right) <= 1
    bin_ = calibration.bins(sure)
    assert np.bincount(bin_.astype(int)).min() >= 10
    plain = sum((bin_ == b).mean() * (right[bin_ == b].mean() - sure[bin_ == b].mean()) ** 2 for b in np.unique(bin_))
    assert calibration.squared_error(sure, right, bin_) <= plain + 1e-12, "what is taken off is never negative"


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=30))
def test_agreement_counts_pairs(texts: list[str]) -> None:
    pairs = [(a, b) for i, a in enumerate(texts) for b in texts[:i]]
    assert agreement(texts) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_questions_are_those_of_lm_eval(reference: TransformersModel) -> None:
    """The same items, and the same log-likelihoods, as the suite accuracy keeps."""
    tasks = ["world_facts", "world_passages"]
    kept = {s.item: s for s in accuracy(reference, tasks=tasks, limit=20) if s.detail}
    for asked in questions(tasks, Options(limit=20)).values():
        for question, said in zip(asked, scores(reference, asked), strict=True):
            sample = kept[question.item]
            assert said == pytest.approx([r[0] for r in sample.detail["responses"]], abs=2e-3)
            assert {int(sample.detail["target"])} == question.gold and sample.cluster == question.cluster


def test_few_shot_examples_come_before(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"q": "Who is {n}?", "c": ["a", "b"], "g": "b"}}\n' for n in range(4)))
    task = tmp_path / "task.yaml"
    task.write_text(
        "task: small\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\nfewshot_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\ndoc_to_text: '{{{{q}}}}'\ndoc_to_choice: c\n"
        "doc_to_target: g\nmetric_list: [{metric: acc}]\n"
    )
    (question, *_) = questions([str(task)], Options(num_fewshot=2))["small"]
    assert question.own == "Who is 0?" and question.before.count("Who is") == 2
    assert question.gold == {1} and question.answers == (" a", " b")


def test_draws_depend_on_the_seed_alone(reference: TransformersModel) -> None:
    prompt = "Question: Where does Zipevet live?\nAnswer:"
    first = drawn(reference, prompt, draws=3, max_new_tokens=5, seed=1)
    assert first == drawn(reference, prompt, draws=3, max_new_tokens=5, seed=1)
    assert first is not None and len(first) == 3
    assert drawn(reference, prompt, draws=2, max_new_tokens=600, seed=1) is None


def test_too_few_questions_have_no_calibration(reference: TransformersModel) -> None:
    samples = list(reliability(reference, limit=6, unknown=None, draws=0))
    (error,) = [s for s in samples if s.metric and s.metric.name == "world_facts/calibration_error2"]
    assert error.value is None and error.reason == "fewer than 20 questions"
    assert mean(samples, "world_facts/brier") is not None


def test_the_reference_model_knows_its_limits(reference: TransformersModel) -> None:
    samples = list(reliability(reference, tasks=[], limit=30))
    value = mean(samples, "abstention/informedness")
    assert value is not None and value > 0.3


def test_tasks_that_have_no_choices_abstain(tmp_path: Path) -> None:
    rows, task = tmp_path / "rows.jsonl", tmp_path / "task.yaml"
    rows.write_text('{"q": "a", "t": "b"}\n')
    task.write_text(
        "task: free\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\ndoc_to_text: q\ndoc_to_target: t\n"
    )
    with pytest.raises(Abstain, match="free is not multiple choice"):
        list(reliability(Oracle(), tasks=[str(task)]))
    with pytest.raises(Abstain, match="nothing to measure"):
        list(reliability(Oracle(), tasks=[], unknown=None))


def test_truthfulqa_as_lm_eval_scores_it(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    model = TransformersModel(Checkpoint(shared_data / "models" / "stories260K", "stories"))
    task = str(shared_data / "tasks" / "local_truthfulqa_mc1.yaml")
    samples = list(reliability(model, tasks=[], unknown=None, truthfulqa=task, limit=40, batch_size=32))
    theirs = list(accuracy(model, tasks=[task], limit=40))
    assert mean(samples, "truthfulqa/mc1") == mean(theirs, "local_truthfulqa_mc1/acc")
    assert 0.2 < (mean(samples, "truthfulqa/mc2") or 0) < 0.6
