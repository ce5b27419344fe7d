"""The joint bootstrap: what is paired stays paired, its spread is that of the mean, and what cannot move does not."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.objectives import MEAN, SHARES, counted, objective
from tests.stores import TTFT, fill, numbers
from weighin.results.front import front
from weighin.results.objectives import Axis, read_objective
from weighin.results.records import Metric, Sample
from weighin.results.stability import drawn, moves, stability
from weighin.results.statistics import clustered_mean

LOG = Axis("s", "perplexity", "1", "lower", "exp_mean", False)
MEDIAN = Axis("latency", "ttft", "s", "lower", "median", True)


def test_the_draws_spread_as_a_mean_does() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 3)) * [1, 2, 3]
    draws = drawn([objective(MEAN, values)], 2000)[:, :, 0]
    assert draws.shape == (2000, 3)
    assert draws.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.02)
    assert draws.std(axis=0) == pytest.approx(values.std(axis=0) / 20, rel=0.06)


def test_clusters_are_drawn_whole() -> None:
    rng = np.random.default_rng(1)
    names = np.repeat(np.arange(60), 10)
    values = np.repeat(rng.normal(size=(60, 1)), 10, axis=0) + 0.1 * rng.normal(size=(600, 1))
    expected = clustered_mean(values[:, 0], names).se
    assert drawn([objective(MEAN, values, names)], 2000).std() == pytest.approx(expected, rel=0.1)
    assert drawn([objective(MEAN, values)], 2000).std() < (expected or 0) / 2


def test_what_is_paired_stays_paired_across_variants_and_metrics_of_a_suite() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(size=(200, 1))
    values = hard + 0.05 * rng.normal(size=(200, 2))
    made = [objective(MEAN, values), objective(replace(MEAN, metric="other"), -values)]
    draws = drawn(made, 500)
    assert np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1] > 0.99
    assert np.corrcoef(draws[:, 0, 0], draws[:, 0, 1])[0, 1] < -0.99
    apart = drawn([made[0], objective(replace(MEAN, suite="t"), values)], 500)
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 0, 1])[0, 1]) < 0.2, "another suite draws its own"


def test_each_reduction_is_that_of_the_figures() -> None:
    """With every item drawn as often, a draw is the figure itself: the mean of many draws lies on it."""
    values = np.random.default_rng(3).uniform(1, 2, size=(301, 2))
    for axis in (MEAN, LOG, MEDIAN, replace(MEAN, reduce="sum")):
        made = objective(axis, values)
        draws = drawn([made], 400)[:, :, 0]
        assert draws.mean(axis=0) == pytest.approx(axis.plain(made.figures), rel=0.02)
        assert (draws.std(axis=0) > 0).all() and moves(made)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_drawn_medians_are_those_of_the_items_drawn(n: int) -> None:
    from weighin.results.stability import _medians

    rng = np.random.default_rng(n)
    values, counts = rng.normal(size=(n, 3)), rng.multinomial(n, [1 / n] * n, size=50).astype(float)
    values[0, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [[np.nanmedian(np.repeat(v, c.astype(int))) for v in values.T] for c in counts]
    assert _medians(values, counts) == pytest.approx(np.array(expected), nan_ok=True)


def test_what_cannot_move_does_not() -> None:
    for still in (counted([3.0, 4.0]), objective(replace(MEAN, reduce="max"), [[1.0, 2.0], [3.0, 4.0]]),
                  objective(MEAN, [[1.0, 2.0]])):  # fmt: skip
        assert not moves(still)
        assert (drawn([still], 20)[:, :, 0] == still.axis.plain(still.figures)).all()


def test_a_figure_with_limits_of_its_own_is_drawn_from_them() -> None:
    made = replace(objective(MEAN, [[1.0, 5.0]]), low=np.array([0.8, np.nan]), high=np.array([1.6, np.nan]))
    draws = drawn([made], 4000)[:, :, 0]
    assert np.quantile(draws[:, 0], [0.025, 0.5, 0.975]) == pytest.approx([0.8, 1.0, 1.6], abs=0.05)
    assert (draws[:, 1] == 5.0).all()
    below = replace(objective(LOG, [[0.0]]), low=np.array([-2.0]), high=np.array([2.0]))
    assert np.isfinite(drawn([below], 200)).all(), "a draw without a logarithm is none"


def test_items_measured_on_one_side_only_count_there(tmp_path: Path) -> None:
    kl = Metric("kl", "nat", better="lower")
    a = [Sample(f"i{i}", 1.0 + i % 2, kl) for i in range(40)]
    b = [Sample(f"i{i}", 2.0 + i % 2, kl) for i in range(20, 60)]
    store = fill(tmp_path / "w.duckdb", {"base": {"s": a}, "small": {"s": b}})
    rows = store.rows("select * from scores order by position")
    made = read_objective(store, Axis("s", "kl", "nat", "lower", "mean", False), rows)
    assert made.values.shape == (60, 2) and np.isnan(made.values).sum() == 40
    assert made.kinds[0] != made.kinds[1]
    assert drawn([made], 500).mean(axis=0)[:, 0] == pytest.approx(made.figures, abs=0.02)


def test_only_a_whole_sets_one_figure_brings_limits(tmp_path: Path) -> None:
    auc = Metric("auc", "1")
    whole = [Sample("all", 0.7, auc, low=0.6, high=0.8)]
    parts = [Sample("a", 0.7, auc, low=0.6, high=0.8), Sample("b", 0.9, auc, low=0.8, high=1.0)]
    store = fill(tmp_path / "w.duckdb", {"base": {"s": whole}, "small": {"s": parts}})
    rows = store.rows("select * from scores order by position")
    made = read_objective(store, Axis("s", "auc", "1", "higher", "mean", False), rows)
    assert made.low.tolist() == [0.6, pytest.approx(np.nan, nan_ok=True)] and made.high[0] == 0.8
    assert drawn([made], 2000)[:, 0, 0].std() == pytest.approx(0.1 / 1.96, rel=0.1)


def test_stability_is_the_share_of_draws_on_the_front() -> None:
    even = np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1))  # each right where the other is wrong
    made = [objective(SHARES, even, method="shares"), counted([1.0, 1.0])]
    share = stability(drawn(made, 1000), np.zeros(2))
    assert share[0] == pytest.approx(0.5, abs=0.1) and share.sum() == pytest.approx(1.0, abs=0.12)
    smaller = [made[0], counted([1.0, 0.5])]
    assert stability(drawn(smaller, 200), np.zeros(2))[1] == 1.0
    assert stability(drawn(made, 200), np.array([1.0, 0.0])).tolist() == [1.0, 1.0], "within the tolerance all are"


def test_twins_are_equal_in_every_draw() -> None:
    """Summed in another order, the same numbers differ in their last digit, which is no difference."""
    rng = np.random.default_rng(6)
    values = np.repeat(rng.normal(size=(301, 1)), 37, axis=1)
    draws = drawn([objective(MEAN, values), counted(np.ones(37))], 50)
    assert (stability(draws, np.zeros(2)) == 1.0).all()


def test_the_same_seed_gives_the_same_draws(tmp_path: Path) -> None:
    suites = {"s": numbers([0.1, 0.2, 0.3, 0.5, 0.8], TTFT), "t": numbers([1.0, 2.0, 4.0], TTFT)}
    store = fill(tmp_path / "w.duckdb", {"base": suites, "small": suites})
    assert front(store, ("s.ttft", "t.ttft")) == front(store, ("s.ttft", "t.ttft"))
