"""The gate: three verdicts, their reasons, and never a silent pass."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores import ACC, DISK, ENERGY, KL, PERPLEXITY, TTFT, Grid, Setting, fill, flipped, numbers, shares
from weighin.results.errors import WeighinError
from weighin.results.gate import Rule, Verdict, exit_code, judge, passes
from weighin.results.records import Metric, Sample


def verdicts(path: Path, grid: Grid, rules: Sequence[Rule], setting: Setting | None = None) -> list[Verdict]:
    return judge(fill(path / "w.duckdb", grid, setting or Setting()), rules)


def one(path: Path, a: list[Sample], b: list[Sample], margin: float, setting: Setting | None = None) -> Verdict:
    metric = (a or b)[0].metric
    assert metric is not None
    rule = Rule(f"s.{metric.name}", "small", margin=margin)
    (found,) = verdicts(path, {"base": {"s": a}, "small": {"s": b}}, [rule], setting)
    return found


@pytest.mark.parametrize(
    ("n", "worse", "better", "margin", "outcome"),
    [
        (1000, 30, 30, 0.03, "pass"),
        (118, 0, 0, 0.03, "inconclusive"),
        (119, 0, 0, 0.03, "pass"),
        (500, 22, 8, 0.03, "fail"),
        (100, 3, 3, 0.03, "inconclusive"),
        (500, 8, 22, 0.03, "pass"),
        (20, 3, 0, 0.02, "inconclusive"),
        (3000, 60, 30, 0.03, "pass"),  # proven worse, and proven to be worse by less than the margin
    ],
)
def test_binary_items(tmp_path: Path, n: int, worse: int, better: int, margin: float, outcome: str) -> None:
    a, b = flipped(n, worse, better)
    found = one(tmp_path, shares(a), shares(b), margin)
    assert found.outcome == outcome and found.metric == "s.acc"
    assert (found.needs is not None) == (outcome == "inconclusive" and worse / n < margin + better / n)
    if outcome == "inconclusive":
        assert "more items" in found.why


def test_the_items_it_asks_for_decide_it(tmp_path: Path) -> None:
    a, b = flipped(60, 0, 0)
    found = one(tmp_path, shares(a), shares(b), 0.03)
    assert found.needs is not None and "needs about" in found.why
    a, b = flipped(60 + found.needs, 0, 0)
    assert one(tmp_path / ".", shares(a), shares(b), 0.03, Setting(run="r2", order=1)).outcome == "pass"


def test_a_drop_as_large_as_the_margin_asks_for_nothing(tmp_path: Path) -> None:
    a, b = flipped(20, 3, 0)
    found = one(tmp_path, shares(a), shares(b), 0.02)
    assert found.needs is None and "sooner show a fail" in found.why


def test_clusters_turn_a_pass_into_an_open_question(tmp_path: Path) -> None:
    a, b = flipped(1000, 30, 20)
    names = [f"c{i // 10}" for i in range(1000)]  # what flips, flips by the passage
    assert one(tmp_path, shares(a), shares(b), 0.03).outcome == "pass"
    clustered = one(tmp_path, shares(a, clusters=names), shares(b, clusters=names), 0.03, Setting(run="r2", order=1))
    assert clustered.outcome == "inconclusive"


def test_too_few_clusters_decide_nothing(tmp_path: Path) -> None:
    a, b = flipped(1000, 0, 0)
    names = [f"c{i // 250}" for i in range(1000)]
    found = one(tmp_path, shares(a, clusters=names), shares(b, clusters=names), 0.03)
    assert (found.outcome, found.why) == ("inconclusive", "fewer than 5 clusters")


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, "pass"), (0.2, "fail"), (0.07, "inconclusive")])
def test_numbers(tmp_path: Path, shift: float, outcome: str) -> None:
    rng = np.random.default_rng(6)
    a = rng.uniform(0, 1, size=100)
    noise = rng.normal(0, 0.4, size=100)
    b = a + shift + noise - noise.mean()
    found = one(tmp_path, numbers(list(a), KL), numbers(list(b), KL), 0.1)
    assert found.outcome == outcome
    if outcome == "inconclusive":
        assert found.needs is not None and found.needs > 100


def test_the_margin_of_a_perplexity_is_a_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    loss = rng.uniform(1, 3, size=200)
    worse = loss + np.log(1.04) + 0.02 * rng.normal(size=200)
    a, b = numbers(list(loss), PERPLEXITY), numbers(list(worse), PERPLEXITY)
    assert one(tmp_path, a, b, 0.05).outcome == "pass"
    found = one(tmp_path, a, b, 0.03, Setting(run="r2", order=1))
    assert found.outcome == "fail" and "3 %" in found.why


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (numbers([1.0] * 9, ENERGY, "modelled"), "modelled"),
        (numbers([0.1] * 9, TTFT), "not interleaved"),
        (numbers([5.0] * 9, Metric("count", "1", better="lower", reduce="sum")), "no test for a sum yet"),
        (numbers([1.0], KL), "fewer than 5 items"),
    ],
)
def test_what_cannot_be_judged_is_inconclusive(tmp_path: Path, samples: list[Sample], reason: str) -> None:
    grid = {"base": {"s": samples}, "small": {"s": list(samples)}}
    rule = Rule(f"s.{samples[0].metric.name}", "small", margin=1e9)  # type: ignore[union-attr]
    (found,) = verdicts(tmp_path, grid, [rule])
    assert (found.outcome, found.why) == ("inconclusive", reason)
    assert exit_code([found]) == 3


def test_figures_of_a_simulated_format_are_inconclusive_its_accuracy_is_not(tmp_path: Path) -> None:
    a, b = flipped(300, 0, 0)
    resident = Metric("resident", "B", better="lower", reduce="max", runtime=True)
    suites = [{"accuracy": shares(x), "memory": numbers([float(size)], resident)} for x, size in ((a, 4096), (b, 1024))]
    rules = [Rule("accuracy.acc", "fake", margin=0.03), Rule("memory.resident", "fake")]
    grid = {"base": suites[0], "fake": suites[1]}
    accuracy, memory = verdicts(tmp_path, grid, rules, Setting(forms={"fake": "simulated"}))
    assert accuracy.outcome == "pass"
    assert memory.outcome == "inconclusive" and "dense kernel" in memory.why


@pytest.mark.parametrize(
    ("size", "margin", "outcome"), [(900, 0, "pass"), (1024, 0, "pass"), (1030, 0, "fail"), (1030, 10, "pass")]
)
def test_bytes_are_compared_as_they_are(tmp_path: Path, size: int, margin: float, outcome: str) -> None:
    found = one(tmp_path, numbers([1024.0], DISK), numbers([float(size)], DISK), margin)
    assert found.outcome == outcome and "1.00 KiB" in found.why


def test_missing_results_are_inconclusive_with_their_reason(tmp_path: Path) -> None:
    a, _ = flipped(300, 0, 0)
    grid = {
        "base": {"accuracy": shares(a), "energy": "no counter"},
        "small": {"accuracy": "out of memory", "energy": "no counter"},
    }
    rules = [Rule("accuracy.acc", "small", margin=0.03), Rule("energy.total", "small")]
    found = verdicts(tmp_path, grid, rules)
    assert [(v.outcome, v.metric, v.why) for v in found] == [
        ("inconclusive", "accuracy.acc", "small: accuracy abstained: out of memory"),
        ("inconclusive", "energy.total", "base: energy abstained: no counter; small: energy abstained: no counter"),
    ]
    assert exit_code(found) == 3 and not passes(found)


def test_unlike_protocols_and_unmatched_items_are_inconclusive(tmp_path: Path) -> None:
    a, b = flipped(300, 0, 0)
    protocols = {"base": {"prompt": "a"}, "small": {"prompt": "b"}}
    found = one(tmp_path, shares(a), shares(b), 0.03, Setting(protocols=protocols))
    assert found.outcome == "inconclusive" and "prompt" in found.why
    found = one(tmp_path, shares(a), shares(b)[1:], 0.03, Setting(run="r2", order=1))
    assert found.outcome == "inconclusive" and "1 of 300 items" in found.why


def test_a_metric_without_a_task_means_every_task(tmp_path: Path) -> None:
    good, bad = flipped(300, 0, 0), flipped(300, 40, 0)
    tasks = {"arc/acc": good, "piqa/acc": bad}
    grid = {}
    for k, label in enumerate(("base", "small")):
        right = [(task, i, v) for task, pair in tasks.items() for i, v in enumerate(pair[k])]
        grid[label] = {"accuracy": [Sample(f"{task}{i}", float(v), Metric(task, "1")) for task, i, v in right]}
    store = fill(tmp_path / "w.duckdb", grid)
    found = judge(store, [Rule("accuracy.acc", "small", margin=0.03)])
    assert [(v.metric, v.outcome) for v in found] == [("accuracy.arc/acc", "pass"), ("accuracy.piqa/acc", "fail")]
    assert [v.metric for v in judge(store, [Rule("accuracy.piqa/acc", "small")])] == ["accuracy.piqa/acc"]


def test_the_same_checkpoint_passes(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"s": shares([1, 0, 1])}, "copy": {"s": shares([1, 0, 1])}})
    store.set_cell("r1", "copy", "s", status="ok", evaluation_id="r1-base-s", reused=True)
    (found,) = judge(store, [Rule("s.acc", "copy", margin=0.01)])
    assert found.outcome == "pass" and "same checkpoint" in found.why


def test_alarms_are_corrected_over_the_rules_of_a_role(tmp_path: Path) -> None:
    """A drop with p = 0.03 blocks alone, and not among nine others that show nothing."""
    a, b = flipped(300, 9, 2)
    same = flipped(300, 6, 6)
    suites = [{"s0": shares(x), **{f"s{i}": shares(y) for i in range(1, 10)}} for x, y in ((a, same[0]), (b, same[1]))]
    store = fill(tmp_path / "w.duckdb", {"base": suites[0], "small": suites[1]})
    alone = judge(store, [Rule("s0.acc", "small", margin=0.02)])[0]
    assert alone.outcome == "fail" and alone.p_adjusted is not None and alone.p_adjusted < 0.05
    many = judge(store, [Rule(f"s{i}.acc", "small", margin=0.02) for i in range(10)])
    assert many[0].outcome == "inconclusive" and many[0].p_adjusted == pytest.approx(10 * alone.p_adjusted)
    watched = [Rule(f"s{i}.acc", "small", margin=0.02, role="watch") for i in range(1, 10)]
    assert judge(store, [Rule("s0.acc", "small", margin=0.02), *watched])[0].outcome == "fail"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("acuracy.acc", "small"), "no suite 'acuracy'. Did you mean 'accuracy'"),
        (Rule("accuracy.ac", "small"), "Did you mean 'accuracy.acc'"),
        (Rule("accuracy.acc", "smal"), "Did you mean 'small'"),
        (Rule("accuracy.acc", "small", against="bas"), "Did you mean 'base'"),
    ],
)
def test_unknown_names_say_what_is_allowed(tmp_path: Path, rule: Rule, message: str) -> None:
    grid = {"base": {"accuracy": shares([1])}, "small": {"accuracy": shares([1])}}
    with pytest.raises(WeighinError, match=message):
        verdicts(tmp_path, grid, [rule])


def test_rules_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for wrong in (
        {"metric": "accuracy", "variant": "small"},
        {"metric": "a.b", "variant": "small", "margin": -0.1},
        {"metric": "a.b", "variant": "small", "margin": float("nan")},
        {"metric": "a.b", "variant": "base"},
        {"metric": "a.b", "variant": "small", "role": "block"},
    ):
        with pytest.raises(WeighinError):
            Rule(**wrong)  # type: ignore[arg-type]
    size = Metric("length", "token", better="none")
    with pytest.raises(WeighinError, match="is 2 points"):
        one(tmp_path, shares([1, 0]), shares([1, 0]), 2)
    with pytest.raises(WeighinError, match="neither way is better"):
        one(tmp_path, numbers([1.0] * 9, size), numbers([2.0] * 9, size), 1.0, Setting(run="r2", order=1))


outcomes = st.lists(st.tuples(st.sampled_from(["pass", "fail", "inconclusive"]), st.sampled_from(["gate", "watch"])))


@given(outcomes)
def test_a_release_passes_only_when_every_gate_rule_does(given_outcomes: list[tuple[str, str]]) -> None:
    found = [Verdict(Rule("a.b", "v", role=role), "a.b", outcome, "") for outcome, role in given_outcomes]  # type: ignore[arg-type]
    gate = [outcome for outcome, role in given_outcomes if role == "gate"]
    expected = 1 if "fail" in gate else 0 if gate and set(gate) == {"pass"} else 3
    assert exit_code(found) == expected and passes(found) == (expected == 0)


def test_nothing_to_judge_is_no_pass(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"s": shares([1])}})
    assert judge(store, []) == [] and exit_code([]) == 3
    assert ACC.better == "higher"
