"""The view `scores`: the same aggregates as statistics.py, and a reason wherever it gives none."""

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.stores import ACC, DISK, ENERGY, KL, PERPLEXITY, TTFT, Setting, evaluation, fill, numbers, run_row, shares
from weighin.results.database import MIGRATIONS
from weighin.results.errors import StoreError
from weighin.results.records import Metric, Sample
from weighin.results.statistics import clustered_mean, wilson
from weighin.results.table import sample_frames


class Lab:
    """The schema and the views in memory, so that a property test can ask hundreds of times."""

    def __init__(self) -> None:
        self.con = duckdb.connect()
        for name in (*MIGRATIONS, "views.sql"):
            self.con.execute(files("weighin.results").joinpath(name).read_text())

    def score(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """The one score of an evaluation of these samples."""
        metrics: dict[str, Metric] = {}
        incoming = pd.concat(sample_frames("e", samples, metrics))
        (metric,) = metrics.values()
        row = ["e", metric.name, metric.unit, metric.better, metric.reduce, metric.runtime, metric.signed, 0, None, 0.0]
        self.con.execute("delete from samples; delete from metrics;")
        self.con.execute("insert into metrics values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.con.register("incoming", incoming)
        self.con.execute("insert into samples select * from incoming")
        cursor = self.con.execute("from reckon(null)")
        (found,) = cursor.fetchall()
        return dict(zip([d[0] for d in cursor.description], found, strict=True))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


def test_the_t_quantile_is_close_to_the_true_one(lab: Lab) -> None:
    df = [4, 5, 6, 8, 10, 20, 50, 100, 1000, 100_000]
    found = [row[0] for row in lab.con.execute("select t975(unnest(?::double[]))", [df]).fetchall()]
    assert found == pytest.approx(list(stats.t.ppf(0.975, df)), rel=4e-4)
    assert found[3:] == pytest.approx(list(stats.t.ppf(0.975, df[3:])), rel=2e-5)


few = settings(max_examples=25, deadline=None)


@few
@given(st.lists(st.booleans(), min_size=2, max_size=200))
def test_shares_are_wilson(lab: Lab, right: list[bool]) -> None:
    row = lab.score(shares(right))
    assert (row["n"], row["clusters"], row["ci_method"]) == (len(right), len(right), "Wilson")
    assert row["value"] == pytest.approx(np.mean(right))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(sum(right), len(right)), abs=1e-9)


values = st.floats(-1e3, 1e3, allow_nan=False).map(lambda v: round(v, 3))
items = st.lists(st.tuples(values, st.integers(0, 12), st.integers(1, 50)), min_size=8, max_size=80)


@few
@given(items, st.booleans(), st.booleans())
def test_means_are_cluster_robust(lab: Lab, rows: list[tuple[float, int, int]], grouped: bool, heavy: bool) -> None:
    metric = Metric("m", "nat")
    samples = [
        Sample(f"i{i}", v, metric, weight=w if heavy else 1, cluster=f"c{c}" if grouped else None)
        for i, (v, c, w) in enumerate(rows)
    ]
    row = lab.score(samples)
    found = clustered_mean(
        [v for v, *_ in rows], [c for _, c, _ in rows] if grouped else None, [w for *_, w in rows] if heavy else None
    )
    assert row["value"] == pytest.approx(found.mean, rel=1e-9, abs=1e-9)
    assert row["clusters"] == found.clusters
    limits = found.interval()
    if limits is None and not {v for v, *_ in rows} <= {0, 1}:
        assert row["ci_low"] is None and "fewer than 5" in row["ci_reason"]
    elif {v for v, *_ in rows} <= {0, 1}:
        return  # shares have tests of their own
    elif len({v for v, *_ in rows}) == 1:
        assert row["ci_low"] is None and row["ci_reason"] == "all values are equal"
    else:
        assert row["ci_high"] - row["ci_low"] == pytest.approx(limits[1] - limits[0], rel=4e-4, abs=1e-9)
        assert row["ci_high"] + row["ci_low"] == pytest.approx(limits[1] + limits[0], rel=1e-6, abs=1e-6)


@few
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=10, max_size=60))
def test_clustered_shares_stay_between_0_and_1(lab: Lab, rows: list[tuple[bool, int]]) -> None:
    right, names = [v for v, _ in rows], [f"c{c % 10}" for _, c in rows]
    row = lab.score(shares(right, clusters=names))
    groups = len(set(names))
    if groups == len(names) or groups < 5:
        return
    if len(set(right)) == 1:  # no spread to see: as if each cluster were one item
        assert row["ci_method"] == "Wilson on clusters"
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(groups * right[0], groups), abs=1e-9)
    else:
        low, high = clustered_mean(right, names).interval() or (0, 0)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((max(low, 0), min(high, 1)), abs=2e-4)


@few
@given(st.lists(values, min_size=1, max_size=120))
def test_medians_have_exact_order_statistics(lab: Lab, times: list[float]) -> None:
    row = lab.score(numbers(times, TTFT))
    assert row["value"] == pytest.approx(np.median(times))
    n, ordered = len(times), sorted(times)
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    if rank == 0:
        assert row["ci_low"] is None and row["ci_reason"] == ("one value" if n == 1 else "fewer than 6 items")
    else:
        assert (row["ci_low"], row["ci_high"]) == (ordered[rank - 1], ordered[n - rank])
        assert stats.binom.cdf(n - rank, n, 0.5) - stats.binom.cdf(rank - 1, n, 0.5) >= 0.95


def test_a_median_of_many_keeps_its_ranks(lab: Lab) -> None:
    n = 20_001
    row = lab.score(numbers([float(v) for v in range(n)], TTFT))
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    assert (row["ci_low"], row["value"], row["ci_high"]) == (rank - 1, 10_000, n - rank)


@few
@given(st.lists(st.floats(0, 20).map(lambda v: round(v, 4)), min_size=6, max_size=60, unique=True))
def test_perplexity_is_the_exponential_of_the_weighted_mean(lab: Lab, losses: list[float]) -> None:
    weights = [1 + i % 7 for i in range(len(losses))]
    row = lab.score(
        [Sample(f"i{i}", v, PERPLEXITY, weight=w) for i, (v, w) in enumerate(zip(losses, weights, strict=True))]
    )
    found = clustered_mean(losses, None, weights)
    assert math.log(row["value"]) == pytest.approx(found.mean, abs=1e-9)
    assert [math.log(row[k]) for k in ("ci_low", "ci_high")] == pytest.approx(
        found.interval() or (), rel=4e-4, abs=3e-3
    )


def test_repetitions_are_averaged_before_items(lab: Lab) -> None:
    samples = [Sample("a", 1.0, KL, rep=r) for r in range(9)] + [Sample("b", 0.0, KL), Sample("c", None, KL)]
    row = lab.score([*samples, Sample("a", None, KL, rep=9)])
    assert (row["value"], row["n"], row["unscored"]) == (0.5, 2, 1)


@pytest.mark.parametrize(
    ("samples", "value", "reason"),
    [
        (numbers([3.0], KL), 3.0, "one value"),
        (shares([1]), 1.0, "one value"),
        (numbers([1.0, 2.0, 3.0], KL), 2.0, "fewer than 5 items"),
        ([Sample(f"i{i}", i / 7, KL, cluster=f"c{i % 3}") for i in range(8)], 0.5, "fewer than 5 clusters"),
        (numbers([2.5] * 9, KL), 2.5, "all values are equal"),
        (numbers([1.0, 2.0, 9.0], DISK), 9.0, "no interval for a maximum"),
        (numbers([1.0, 2.0, 9.0], Metric("total", "J", reduce="sum")), 12.0, "no interval for a sum"),
        ([Sample(f"i{i}", float(i), TTFT, cluster=f"c{i % 6}") for i in range(13)], 6.0,
         "no interval for the median of clustered items"),
        (numbers([1e4] * 8, PERPLEXITY), None, "no value"),
        (numbers([1e308] * 8, Metric("total", "J", reduce="sum")), None, "no value"),
    ],
)  # fmt: skip
def test_no_interval_without_a_reason(lab: Lab, samples: list[Sample], value: float | None, reason: str) -> None:
    row = lab.score(samples)
    assert row["value"] == (None if value is None else pytest.approx(value))
    assert (row["ci_low"], row["ci_high"], row["ci_method"], row["ci_reason"]) == (None, None, None, reason)
    assert row["status"] == ("ok" if value is not None else "abstained")


def test_a_metric_that_measured_nothing_abstains_with_its_first_reason(lab: Lab) -> None:
    row = lab.score([Sample("b", None, KL, reason="too long"), Sample("a", None, KL, reason="other")])
    assert (row["value"], row["status"], row["reason"], row["unscored"]) == (None, "abstained", "too long", 2)


def test_a_declared_metric_without_samples_abstains(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {}})
    store.add_evaluation(evaluation("declared"), [], declared=[KL])
    assert store.rows("select status, reason, n from evaluation_scores where evaluation_id = 'declared'") == [
        {"status": "abstained", "reason": "no sample", "n": 0}
    ]


def test_the_grid_shows_what_failed_and_what_abstained(tmp_path: Path) -> None:
    grid = {"base": {"accuracy": shares([1, 0]), "energy": "no counter"}, "small": {"accuracy": []}}
    store = fill(tmp_path / "w.duckdb", grid)
    store.set_cell("r1", "small", "latency", status="failed", reason="killed")
    store.set_cell("r1", "small", "energy", status="running")
    found = store.rows("select variant, suite, metric, value, status, reason from scores order by position, suite")
    assert [tuple(row.values()) for row in found] == [
        ("base", "accuracy", "acc", 0.5, "ok", None),
        ("base", "energy", "*", None, "abstained", "no counter"),
        ("small", "accuracy", "*", None, "abstained", "the suite yielded no sample"),
        ("small", "latency", "*", None, "failed", "killed"),
    ]


def test_a_variant_that_could_not_be_made_keeps_its_place(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    store.start_run(run_row("r2", order=1), [("base", "key-base"), ("bad", None)], [("bad", "accuracy")])
    store.set_cell("r2", "bad", "accuracy", status="failed", reason="stage gptq: out of memory")
    (row,) = store.rows("select * from latest_scores")
    assert (row["variant"], row["variant_key"], row["position"], row["value"]) == ("bad", None, 1, None)
    assert row["reason"] == "stage gptq: out of memory" and not row["eligible"]
    cards = store.rows("select variant, status, parent from variant_cards where run_id = 'r2' order by position")
    assert cards == [
        {"variant": "base", "status": "ok", "parent": None}, {"variant": "bad", "status": "failed", "parent": None}
    ]  # fmt: skip


def test_modelled_and_simulated_figures_are_not_eligible(tmp_path: Path) -> None:
    grid = {
        "base": {"energy": numbers([1.0, 2.0], ENERGY, "modelled"), "accuracy": shares([1, 0])},
        "fake": {"latency": numbers([0.1, 0.2], TTFT), "accuracy": shares([1, 0])},
        "real": {
            "energy": [*numbers([1.0], ENERGY, "counter"), Sample("x", 2.0, ENERGY)],
            "latency": numbers([0.1, 0.2], TTFT),
        },
        "mixed": {"energy": [*numbers([1.0], ENERGY, "counter"), Sample("x", 2.0, ENERGY, source="modelled")]},
    }
    store = fill(tmp_path / "w.duckdb", grid, Setting(forms={"fake": "simulated"}))
    found = store.rows("select variant, suite, source, eligible, eligible_reason from scores order by position, suite")
    assert [tuple(row.values()) for row in found] == [
        ("base", "accuracy", "measured", True, None),
        ("base", "energy", "modelled", False, "modelled"),
        ("fake", "accuracy", "measured", True, None),
        ("fake", "latency", "measured", False, "dense kernel: the runtime simulates this format"),
        ("real", "energy", "mixed", True, None),
        ("real", "latency", "measured", True, None),
        ("mixed", "energy", "mixed", False, "modelled"),
    ]


def test_the_newest_run_and_a_reused_evaluation(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    store.start_run(run_row("r2", order=5), [("root", "key-base")], [("root", "accuracy")])
    store.set_cell("r2", "root", "accuracy", status="ok", evaluation_id="r1-base-accuracy", reused=True)
    assert store.latest_run() == "r2"
    (row,) = store.rows("select run_id, variant, value, reused from latest_scores")
    assert row == {"run_id": "r2", "variant": "root", "value": 0.5, "reused": True}


def test_the_views_can_be_read_without_us(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0, 1, 1])}})
    with duckdb.connect(str(store.path), read_only=True) as con:
        found = con.execute("select variant, metric, value, ci_low from scores").fetchall()
    assert found == [("base", "acc", 0.75, pytest.approx(wilson(3, 4)[0]))]


def test_what_is_kept_is_what_the_samples_say(tmp_path: Path) -> None:
    grid = {
        "base": {"accuracy": shares([1, 0, 1]), "fidelity": numbers([0.1, 0.2, None], KL), "latency": "no clock"},
        "small": {"accuracy": shares([1, 0, 0]), "latency": numbers([0.1 * i for i in range(9)], TTFT)},
    }
    store = fill(tmp_path / "w.duckdb", grid)

    def both() -> list[list[dict[str, Any]]]:
        order = "order by evaluation_id, metric"
        return [store.rows(f"select * from {name} {order}") for name in ("evaluation_scores", "reckon(null)")]

    kept, reckoned = both()
    assert kept == reckoned and len(kept) == 4
    with duckdb.connect(str(store.path)) as con:  # as a release with other views would leave it
        con.execute("delete from evaluation_scores; update meta set value = 'old' where key = 'views'")
    assert both() == [reckoned, reckoned]


def test_two_machines_never_share_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    fill(path, {"base": {"latency": numbers([0.1, 0.2], TTFT)}}, Setting(forms={"base": "simulated"}))
    grid = {"base": {"latency": numbers([0.1, 0.2], TTFT)}}
    store = fill(path, grid, Setting(run="r2", machine="m2", order=1))
    found = store.rows("select run_id, machine_key, eligible from scores order by run_id")
    assert [tuple(row.values()) for row in found] == [("r1", "m1", False), ("r2", "m2", True)]
    assert ACC.runtime is False


def test_a_drop_of_zeros_and_ones_is_no_share(lab: Lab) -> None:
    """Its interval may lie below 0, which a share's may not."""
    drop = Metric("drop", "1", better="lower", signed=True)
    found = lab.score([Sample(f"i{i}", float(i == 0), drop) for i in range(12)])
    assert found["ci_method"] == "cluster-robust t" and found["ci_low"] < 0


def test_a_figure_of_a_whole_set_brings_its_interval(lab: Lab) -> None:
    auroc = Metric("auroc", "1")
    found = lab.score([Sample("all", 0.75, auroc, weight=120, low=0.7, high=0.81)])
    assert (found["value"], found["ci_low"], found["ci_high"], found["n"]) == (0.75, 0.7, 0.81, 120)
    assert found["ci_method"] == "the suite's own" and found["status"] == "ok"
    alone = lab.score([Sample("all", 0.75, auroc)])
    assert alone["ci_low"] is None and alone["ci_reason"] == "one value"
    with pytest.raises(StoreError, match=r"0.9 between 0.1 and 0.5"):
        lab.score([Sample("all", 0.9, auroc, low=0.1, high=0.5)])


def test_a_figure_has_the_same_bits_in_any_order_and_with_any_number_of_threads(lab: Lab) -> None:
    """What is kept in one store is compared with what another reckons: the last bit counts."""
    rng, n = np.random.default_rng(0), 7_000
    values, weights = rng.lognormal(0, 3, n) * rng.choice([-1, 1], n), rng.lognormal(0, 1, n)
    samples = [
        Sample(f"i{i % (n // 2)}", values[i], KL, rep=i // (n // 2), cluster=f"c{i % (n // 2) % 61}", weight=weights[i])
        for i in range(n)
    ]
    found = []
    for trial in range(10):
        lab.con.execute(f"set threads = {1 + trial % 4}")
        found.append(lab.score([samples[i] for i in rng.permutation(n)] if trial else samples))
    assert all(other == found[0] for other in found)
