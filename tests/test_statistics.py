"""Formulae against published examples, exact enumeration, scipy, and the invariants they must keep."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from weighin.results.statistics import (
    clopper_pearson,
    clustered_mean,
    design_effect,
    holm,
    items_needed,
    mcnemar_midp,
    mde,
    rarest_flips,
    sign_flip_midp,
    tango_interval,
    tango_items,
    tango_upper,
    tango_z,
    wilson,
)

Z95 = float(stats.norm.ppf(0.95))

tables = st.integers(1, 300).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
        lambda t: st.tuples(st.integers(0, t[0]), st.just(t[0]), st.just(t[1]))
    )
).map(lambda t: (t[0], t[1] - t[0], t[2]))  # fmt: skip
"""b, c, n with b + c <= n."""


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_agree_with_scipy(case: tuple[int, int]) -> None:
    k, n = case
    test = stats.binomtest(k, n)
    for ours, theirs in ((wilson, "wilson"), (clopper_pearson, "exact")):
        assert ours(k, n) == pytest.approx(tuple(test.proportion_ci(method=theirs)), abs=1e-9)


@pytest.mark.parametrize("bad", [(-1, 3), (4, 3), (0, 0)])
def test_shares_that_are_none_are_refused(bad: tuple[int, int]) -> None:
    for interval in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="successes"):
            interval(*bad)


def test_tango_and_mcnemar_reproduce_a_published_example() -> None:
    """Airway hyper-responsiveness before and after stem-cell transplantation (Bentur et al. 2009): 1 and 7 flips of 21
    children; Fagerland, Lydersen & Laake (2014, Stat Med 33:2850) give -0.517 to -0.026 and mid-p 0.0391."""
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert mcnemar_midp(1, 7, "two-sided") == pytest.approx(0.0391, abs=5e-5)


def test_zero_flips_need_119_items_at_three_points() -> None:
    """Uncorrected the test passes from 88, before the rule of three (99) allows it."""
    first = {cc: next(n for n in range(1, 200) if tango_z(0, 0, n, 0.03, corrected=cc) < -Z95) for cc in (True, False)}
    assert first == {True: 119, False: 88}
    assert 118 < tango_items(0, 0, 0.03, Z95) <= 119


@given(tables, st.floats(0.005, 0.5))
@settings(max_examples=40)
def test_tango_is_the_constrained_maximum_likelihood_score(case: tuple[int, int, int], margin: float) -> None:
    """q of the formula maximises the trinomial likelihood under P(b) - P(c) = margin."""
    b, c, n = case
    grid = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 20_001)
    rest = np.maximum(1 - margin - 2 * grid, 1e-300)
    likelihood = b * np.log(grid + margin) + c * np.log(grid) + (n - b - c) * np.log(rest)
    q = grid[int(np.argmax(likelihood))]
    expected = (b - c - n * margin) / math.sqrt(n * (2 * q + margin * (1 - margin)))
    assert tango_z(b, c, n, margin, corrected=False) == pytest.approx(expected, rel=5e-3, abs=5e-3)


@given(tables)
def test_tango_limits_invert_the_test(case: tuple[int, int, int]) -> None:
    b, c, n = case
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    mirrored = tango_interval(c, b, n)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-9)
    upper = tango_upper(b, c, n, Z95)
    if upper < 1:
        assert tango_z(b, c, n, upper + 1e-6) < -Z95 <= tango_z(b, c, n, upper - 1e-6)


@given(tables, st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_a_wider_margin_is_never_harder(case: tuple[int, int, int], one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert tango_z(*case, large) <= tango_z(*case, small) + 1e-9


def _operating(n: int, flips: float, drop: float, margin: float = 0.03) -> tuple[float, float]:
    """P(PASS) and P(FAIL) by enumeration of all tables, PASS evaluated first."""
    worse, better = (flips + drop) / 2, (flips - drop) / 2
    passed = failed = 0.0
    for k in range(int(stats.binom.ppf(1 - 1e-10, n, flips)) + 1):
        p = stats.binom.pmf(k, n, flips) * stats.binom.pmf(np.arange(k + 1), k, worse / (worse + better))
        for b in range(k + 1):
            if tango_z(b, k - b, n, margin) < -Z95:
                passed += p[b]
            elif b > k - b and mcnemar_midp(b, k - b) <= 0.05:
                failed += p[b]
    return float(passed), float(failed)


@pytest.mark.parametrize(
    ("n", "flips", "pass0", "fail0", "pass3", "fail3"),
    [
        (100, 0.06, 0.195, 0.034, 0.021, 0.274),
        (200, 0.06, 0.442, 0.045, 0.034, 0.529),
        (300, 0.06, 0.605, 0.049, 0.037, 0.700),
        (100, 0.12, 0.167, 0.045, 0.034, 0.203),
        (200, 0.12, 0.295, 0.049, 0.040, 0.333),
    ],
)
def test_the_gate_has_the_error_rates_it_states(
    n: int, flips: float, pass0: float, fail0: float, pass3: float, fail3: float
) -> None:
    """Exact chances of PASS and FAIL at no drop and at a drop as large as the margin."""
    assert _operating(n, flips, 0.0) == pytest.approx((pass0, fail0), abs=6e-4)
    assert _operating(n, flips, 0.03) == pytest.approx((pass3, fail3), abs=6e-4)


def _size(n: int, margin: float, flips: float) -> float:
    """Exact chance that the gate passes a drop of exactly the margin: a sum over b, and over c from the least that
    passes (more answers won never make it harder)."""
    worse, better = (flips + margin) / 2, (flips - margin) / 2
    low, high = (int(stats.binom.ppf(tail, n, worse)) for tail in (1e-9, 1 - 1e-9))
    total = 0.0
    for b in range(low, high + 1):
        least, most = 0, n - b + 1
        while least < most:
            middle = (least + most) // 2
            if middle <= n - b and tango_z(b, middle, n, margin) < -Z95:
                most = middle
            else:
                least = middle + 1
        if least <= n - b:
            total += stats.binom.pmf(b, n, worse) * stats.binom.sf(least - 1, n - b, better / (1 - worse))
    return float(total)


def test_the_worst_case_size_over_the_whole_grid_is_under_five_per_cent() -> None:
    """10 to 2,000 items, margins of 1 to 5 points, 1 to 30 % flips: at most 4.8 %, exactly."""
    grid = [
        (n, margin, flips)
        for n in (10, 20, 50, 100, 200, 300, 500, 1000, 2000)
        for margin in (0.01, 0.02, 0.03, 0.05)
        for flips in (0.01, 0.03, 0.06, 0.12, 0.3)
        if flips >= margin
    ]
    assert 0.045 < max(_size(*cell) for cell in grid) < 0.05


@pytest.mark.parametrize("n", [30, 100, 200])
@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
def test_an_unsafe_release_passes_at_most_one_time_in_twenty(n: int, margin: float) -> None:
    rates = [_operating(n, flips, margin, margin)[0] for flips in (margin, margin * 1.05, margin + 0.02, 0.12, 0.25)
             if flips >= margin]  # fmt: skip
    assert max(rates) <= 0.05


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_midp_is_the_exact_test_less_half_the_point(b: int, c: int) -> None:
    p = mcnemar_midp(b, c)
    if b + c == 0:
        assert p == 1
        return
    exact = stats.binomtest(b, b + c, alternative="greater").pvalue
    assert p == pytest.approx(exact - 0.5 * stats.binom.pmf(b, b + c, 0.5), abs=1e-12)
    assert p + mcnemar_midp(c, b) == pytest.approx(1)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_flipping_the_sign_of_single_items_is_mcnemar(d: list[int]) -> None:
    b, c = d.count(1), d.count(-1)
    for alternative in ("worse", "two-sided"):
        assert sign_flip_midp(d, alternative) == pytest.approx(mcnemar_midp(b, c, alternative), abs=1e-12)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=10))
def test_sign_flips_agree_with_enumeration(sums: list[int]) -> None:
    if not any(sums):
        assert sign_flip_midp(sums) == 1
        return
    totals = [
        sum(s * e for s, e in zip(sums, signs, strict=True)) for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = np.mean([(t > sum(sums)) + 0.5 * (t == sum(sums)) for t in totals])
    assert sign_flip_midp(sums) == pytest.approx(float(expected), abs=1e-12)


floats = st.floats(-1e3, 1e3, allow_nan=False).map(lambda v: round(v, 6))


@given(st.lists(floats, min_size=5, max_size=80))
def test_unclustered_means_are_the_ordinary_ones(values: list[float]) -> None:
    found = clustered_mean(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.se == pytest.approx(stats.sem(values), rel=1e-9, abs=1e-12)
    if found.se and found.se > 1e-6:
        expected = stats.ttest_1samp(values, 0, alternative="greater")
        student = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert found.interval() == pytest.approx(student, rel=1e-9, abs=1e-9)
        assert found.p_greater() == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)


@given(st.lists(st.tuples(floats, st.integers(0, 9)), min_size=5, max_size=80))
def test_the_clustered_error_is_the_formula_of_the_notes(items: list[tuple[float, int]]) -> None:
    values, clusters = [v for v, _ in items], [c for _, c in items]
    found, groups, mean = clustered_mean(values, clusters), len(set(clusters)), float(np.mean(values))
    if groups < 5:
        assert found.se is None and found.interval() is None and found.upper() is None and found.p_greater() is None
        return
    inner = sum(sum(v - mean for v, c in items if c == g) ** 2 for g in set(clusters))
    assert found.se == pytest.approx(math.sqrt(groups / (groups - 1) * inner) / len(values), rel=1e-7, abs=1e-9)


@given(st.lists(st.tuples(floats, st.integers(1, 5)), min_size=5, max_size=30))
def test_a_weight_of_k_is_a_cluster_of_k_equal_items(items: list[tuple[float, int]]) -> None:
    spread = [(v, i) for i, (v, k) in enumerate(items) for _ in range(k)]
    weighted = clustered_mean([v for v, _ in items], None, [k for _, k in items])
    repeated = clustered_mean([v for v, _ in spread], [i for _, i in spread])
    assert (weighted.mean, weighted.se) == pytest.approx((repeated.mean, repeated.se), rel=1e-7, abs=1e-9)


def test_repeating_every_item_does_not_narrow_the_interval() -> None:
    values = list(np.random.default_rng(0).normal(size=40))
    repeated, names = values * 3, [i % 40 for i in range(120)]
    assert clustered_mean(repeated, names).se == pytest.approx(clustered_mean(values).se)
    assert design_effect(repeated, names) == pytest.approx(3, rel=0.05)
    assert design_effect(values, None) == design_effect([1.0] * 10, list(range(10))) == 1


def test_means_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        clustered_mean([])
    with pytest.raises(ValueError, match="add up to nothing"):
        clustered_mean([1.0], None, [0.0])


def test_a_constant_drop_without_spread_is_judged_by_its_sign() -> None:
    assert clustered_mean([0.5] * 6).p_greater() == 0.5**6
    assert clustered_mean([0.0] * 6).p_greater() == clustered_mean([-0.5] * 6).p_greater() == 1


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_order_and_only_raises(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= q and a <= 1 for a, q in zip(adjusted, p, strict=True))
    assert sorted(adjusted) == [adjusted[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    if p:
        assert min(adjusted) == pytest.approx(min(1.0, len(p) * min(p)))


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_forty_unchanged_metrics_alarm_one_time_in_twenty() -> None:
    """With Holm over 40 independent true hypotheses; without it 87 % of nights would alarm."""
    p = np.random.default_rng(1).uniform(size=(4000, 40))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in p[:2000]]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert (p.min(axis=1) <= 0.05).mean() > 0.8


@pytest.mark.parametrize(
    ("n", "flips", "points"), [(100, 0.03, 4.3), (300, 0.06, 3.5), (1000, 0.12, 2.7), (5000, 0.24, 1.7)]
)
def test_the_least_drop_seen(n: int, flips: float, points: float) -> None:
    assert 100 * mde(flips, n) == pytest.approx(points, abs=0.05)


@pytest.mark.parametrize(
    ("margin", "flips", "items"), [(0.01, 0.03, 1855), (0.02, 0.06, 928), (0.03, 0.06, 413), (0.05, 0.24, 594)]
)
def test_the_items_needed(margin: float, flips: float, items: int) -> None:
    assert items_needed(flips, margin) == pytest.approx(items, rel=0.003)
    assert items_needed(flips, margin, margin) == tango_items(flips, 0, min(margin, flips), Z95) == math.inf


def test_clusters_are_allowed_for() -> None:
    """Items of a cluster that share most of their noise: the naive test alarms far too often, the clustered one not."""
    rng = np.random.default_rng(2)
    naive = robust = 0
    for _ in range(1500):
        d = np.repeat(rng.normal(size=20), 15) * 0.5 + rng.normal(size=300)
        names = np.repeat(np.arange(20), 15)
        naive += (clustered_mean(d).p_greater() or 0) <= 0.05
        robust += (clustered_mean(d, names).p_greater() or 0) <= 0.05
    assert naive / 1500 > 0.12
    assert robust / 1500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.parametrize("n", [100, 400, 2000])
def test_a_drop_cannot_be_seen_from_fewer_flips_than_it_makes(n: int) -> None:
    least = mde(rarest_flips(n), n)
    assert least == pytest.approx(rarest_flips(n)), "the least that is seen is as large as the flips that it takes"
    chance = 1 - sum(math.comb(n, k) * least**k * (1 - least) ** (n - k) for k in range(4))
    assert mcnemar_midp(4, 0) < 0.05 < mcnemar_midp(3, 0), "four flips one way, and no fewer, show a drop"
    assert chance > 0.8
