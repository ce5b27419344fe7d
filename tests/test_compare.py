"""Two variants paired by item: what is joined, what is refused, and which figures come out."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.stores import ACC, DISK, ENERGY, KL, PERPLEXITY, TTFT, Setting, fill, flipped, numbers, shares
from weighin.results.compare import Comparison, Report, compare
from weighin.results.errors import WeighinError
from weighin.results.records import Metric, Sample
from weighin.results.statistics import clustered_mean, mcnemar_midp, tango_interval


def of(path: Path, a: list[Sample], b: list[Sample], setting: Setting | None = None, **how: Any) -> Report:
    """A run with one suite and two variants, compared."""
    store = fill(path / "w.duckdb", {"base": {"s": a}, "small": {"s": b}}, setting or Setting())
    return compare(store, "base", "small", **how)


def only(report: Report) -> Comparison:
    assert report.refusals == ()
    (found,) = report.comparisons
    return found


def test_binary_items_are_paired_by_name_whatever_their_order(tmp_path: Path) -> None:
    a, b = flipped(200, 14, 5)
    shuffled = shares(b)
    np.random.default_rng(0).shuffle(shuffled)  # type: ignore[arg-type]
    found = only(of(tmp_path, shares(a), shuffled))
    assert (found.flips_worse, found.flips_better, found.n, found.method) == (14, 5, 200, "Tango")
    assert found.drop == pytest.approx(9 / 200)
    assert (found.low, found.high) == pytest.approx(tango_interval(14, 5, 200))
    assert (found.p_worse, found.p_two_sided) == (mcnemar_midp(14, 5), mcnemar_midp(14, 5, "two-sided"))
    assert found.upper and found.drop < found.upper < (found.high or 0)
    assert found.mde == pytest.approx(2.4865 * math.sqrt(19 / 200 / 200), rel=1e-3)
    assert found.name == "s.acc"


def test_a_positive_drop_is_worse_whichever_way_is_better(tmp_path: Path) -> None:
    a, b = flipped(60, 9, 2)
    toxic = Metric("toxic", "1", better="lower")
    found = only(of(tmp_path, shares(a, toxic), shares(b, toxic)))
    assert (found.drop, found.flips_worse, found.flips_better) == (pytest.approx(-7 / 60), 2, 9)
    assert found.p_worse and found.p_worse > 0.9


def test_numbers_get_the_paired_t(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=40), rng.normal(0.3, 1, size=40)
    found = only(of(tmp_path, numbers(list(a), KL), numbers(list(b), KL)))
    expected = stats.ttest_rel(b, a, alternative="greater")  # a lower divergence is better
    limits = stats.ttest_rel(b, a).confidence_interval()
    assert found.drop == pytest.approx(b.mean() - a.mean())
    assert found.p_worse == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
    assert found.method == "paired t" and found.flips_worse is None


def test_clusters_widen_the_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    names = [f"passage{i // 10}" for i in range(100)]
    d = np.repeat(rng.normal(size=10), 10) + 0.1 * rng.normal(size=100)
    samples = [[Sample(f"i{i}", v, KL, cluster=c) for i, (v, c) in enumerate(zip(values, names, strict=True))]
               for values in (np.zeros(100), d)]  # fmt: skip
    found = only(of(tmp_path, samples[0], samples[1]))
    assert (found.low, found.high) == pytest.approx(clustered_mean(d, names).interval() or ())
    assert found.clusters == 10 and found.design_effect > 5 and found.method == "paired t, clustered"


@pytest.mark.parametrize("groups", [10, 40])
def test_clustered_flips_are_held_against_students_t(tmp_path: Path, groups: int) -> None:
    """All flips sit in one cluster: the item-wise interval would be far too narrow."""
    a, b = flipped(400, 8, 0)
    names = [f"c{i * groups // 400}" for i in range(400)]
    found = only(of(tmp_path, shares(a, clusters=names), shares(b, clusters=names)))
    assert found.design_effect > 5 and found.clusters == groups
    loose = tango_interval(8, 0, 400)
    assert found.low is not None and found.high is not None and found.upper is not None
    assert found.low < loose[0] and found.high > loose[1] and found.upper > loose[1]
    assert found.p_worse == 0.25  # one cluster worse: half of 1/2, where McNemar would say 1/512
    assert found.method == "Tango, clustered"


def test_perplexity_is_compared_as_a_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    loss = rng.uniform(1, 3, size=30)
    a = [Sample(f"i{i}", v, PERPLEXITY, weight=1 + i % 5) for i, v in enumerate(loss)]
    b = [
        Sample(f"i{i}", v + math.log(1.1) + 0.01 * (-1) ** i, PERPLEXITY, weight=1 + i % 5) for i, v in enumerate(loss)
    ]
    found = only(of(tmp_path, a, b))
    assert found.scale == "log" and found.value_a and found.value_b
    assert math.exp(found.drop) == pytest.approx(found.value_b / found.value_a)
    assert math.exp(found.drop) == pytest.approx(1.1, rel=0.01)
    assert found.p_worse is not None and found.p_worse < 1e-6


def test_repetitions_are_one_item(tmp_path: Path) -> None:
    a = [Sample(f"i{i}", float(i), KL, rep=r) for i in range(8) for r in range(3)]
    b = [Sample(f"i{i}", i + r - 1.0 + 0.1 * i, KL, rep=r) for i in range(8) for r in range(3)]
    found = only(of(tmp_path, a, b))
    assert found.n == 8 and found.drop == pytest.approx(0.35)


def test_unmatched_items_are_counted_and_refused_unless_waived(tmp_path: Path) -> None:
    a, b = flipped(50, 5, 1)
    theirs = [*shares(b)[:-3], Sample("item47", None, ACC, reason="too long"), Sample("new", 1.0, ACC)]
    report = of(tmp_path, shares(a), theirs)
    (refusal,) = report.refusals
    assert refusal.reason == "4 of 51 items were measured on one side only" and refusal.fields == ("unmatched",)
    store = fill(tmp_path / "w2.duckdb", {"base": {"s": shares(a)}, "small": {"s": theirs}})
    waived = compare(store, "base", "small", waive=["unmatched"])
    assert (only(waived).n, only(waived).unmatched, waived.waived) == (47, 4, ("unmatched",))


def test_what_neither_side_measured_is_left_out(tmp_path: Path) -> None:
    a = [*numbers([1.0] * 3 + [2.0] * 3, KL), Sample("x", None, KL)]
    b = [*numbers([1.5] * 3 + [2.0] * 3, KL), Sample("x", None, KL)]
    assert only(of(tmp_path, a, b)).n == 6


def test_unlike_protocols_are_refused_by_name(tmp_path: Path) -> None:
    a, b = flipped(50, 5, 1)
    protocols = {
        "base": {"dtype": "float32", "task": {"version": 1, "data": "abc"}, "only": 1},
        "small": {"dtype": "float32", "task": {"version": 2, "data": "abc"}},
    }
    report = of(tmp_path, shares(a), shares(b), Setting(protocols=protocols))
    (refusal,) = report.refusals
    assert refusal.fields == ("only", "task.version") and "task.version" in refusal.reason
    store = fill(
        tmp_path / "w2.duckdb", {"base": {"s": shares(a)}, "small": {"s": shares(b)}}, Setting(protocols=protocols)
    )
    assert compare(store, "base", "small", waive=["only"]).refusals[0].fields == ("task.version",)
    assert only(compare(store, "base", "small", waive=["only", "task"])).n == 50


def test_unlike_metrics_and_weights_are_refused(tmp_path: Path) -> None:
    a = [Sample(f"i{i}", float(i), KL, weight=1) for i in range(6)]
    b = [Sample(f"i{i}", float(i), KL, weight=2) for i in range(6)]
    assert of(tmp_path, a, b).refusals[0].fields == ("weights",)
    other = [Sample(f"i{i}", float(i), Metric("kl", "bit", better="lower")) for i in range(6)]
    store = fill(tmp_path / "w2.duckdb", {"base": {"s": a}, "small": {"s": other}})
    assert compare(store, "base", "small").refusals[0].fields == ("metric.unit",)


def test_runtime_figures_of_two_machines_are_refused_others_not(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    grid = {"base": {"latency": numbers([0.1, 0.2], TTFT), "accuracy": shares([1, 0, 1])}}
    fill(path, grid)
    store = fill(path, grid, Setting(run="r2", machine="m2", order=1))
    report = compare(store, "r1/base", "r2/base")
    assert [(r.suite, r.fields) for r in report.refusals] == [("latency", ("machine",))]
    assert [c.suite for c in report.comparisons] == ["accuracy"]
    assert report.notes == ("base and base are the same checkpoint: any difference is noise of the measurement",)
    waived = compare(store, "r1/base", "r2/base", waive=["machine"])
    assert {c.caveat for c in waived.comparisons} == {None, "not interleaved"}


def test_what_carries_no_verdict_says_why(tmp_path: Path) -> None:
    suites = {
        "energy": numbers([1.0, 2.0], ENERGY, "modelled"),
        "latency": numbers([0.1, 0.2], TTFT),
        "memory": numbers([4096.0], DISK),
        "most": numbers([1.0, 2.0], Metric("peak", "W", better="lower", reduce="max")),
        "few": numbers([1.0, 2.0, 3.0], KL),
    }
    report = compare(fill(tmp_path / "w.duckdb", {"base": suites, "small": suites}), "base", "small")
    found = {c.suite: c for c in report.comparisons}
    assert {suite: c.caveat for suite, c in found.items()} == {
        "energy": "modelled", "latency": "not interleaved", "memory": None, "most": "no test for a max yet",
        "few": "fewer than 5 items",
    }  # fmt: skip
    assert all(c.upper is None and c.p_worse is None for c in found.values() if c.caveat)
    assert (found["memory"].method, found["memory"].upper) == ("counted", 0.0)


def test_a_variant_against_itself_is_pointed_out(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"s": shares([1, 0, 1])}})
    report = compare(store, "base", "base")
    assert report.notes == ("base is compared with itself",)
    assert only(report).drop == 0


def test_cells_without_a_result_are_listed_with_their_reason(tmp_path: Path) -> None:
    grid = {
        "base": {"s": shares([1]), "energy": "no counter"},
        "small": {"s": shares([1]), "energy": "no counter", "z": []},
    }
    report = compare(fill(tmp_path / "w.duckdb", grid), "base", "small")
    assert [(r.suite, r.reason) for r in report.refusals] == [
        ("energy", "base: energy abstained: no counter; small: energy abstained: no counter"),
        ("z", "base was not measured"),
    ]


def test_names_are_labels_runs_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    fill(path, {"base": {"s": shares([1, 1])}, "small": {"s": shares([1, 0])}})
    store = fill(path, {"base": {"s": shares([0, 0])}, "small": {"s": shares([1, 1])}}, Setting(run="r2", order=1))
    assert only(compare(store, "base", "small")).drop == -1
    assert only(compare(store, "base", "small", run="r1")).drop == 0.5
    assert only(compare(store, "r1/base", "small")).drop == 0
    assert only(compare(store, "r1/base", "key-small")).drop == 0  # a key means its latest evaluations
    for name, message in [
        ("smal", "Did you mean 'small'.*base, small"),
        ("r1/smal", "variant of run r1.*Did you mean 'small'"),
        ("r3/small", "no run 'r3'.*r1, r2"),
        ("zzz", "There is: base, small"),
    ]:
        with pytest.raises(WeighinError, match=message):
            compare(store, "base", name)
    with pytest.raises(WeighinError, match="no run 'r9'"):
        compare(store, "base", "small", run="r9")
