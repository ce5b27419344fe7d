"""The maths of membership: figures reckoned by hand, and what no monotone change of a score may alter."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighin.suites._blind import blind, features
from weighin.suites._exposure import draws_to_extract, exposure
from weighin.suites._membership import auroc, bootstrap, delong, lowest, order_test, scores, tpr, unexplained
from weighin.suites._overlap import overlaps

SETS = st.lists(st.integers(-50, 50), min_size=2, max_size=30)


def test_scores_by_hand() -> None:
    t, z = np.array([-1.0, -4.0, -2.0, -3.0, 0.0]), np.array([1.0, -2.0, 0.0, 3.0, 2.0])
    found = scores("a text of words", t, z, 0.4)
    assert found.loss == -2.0 and found.mink == -3.5 and found.minkpp == -1.0
    assert found.zlib == -10 / len(zlib.compress(b"a text of words"))
    assert lowest(t, 0.01) == -4.0, "at least one token"


def test_auroc_by_hand() -> None:
    assert auroc([3, 2], [1, 0]) == 1.0
    assert auroc([3, 1], [2, 1]) == (1 + 1 + 0 + 0.5) / 4, "a tie counts half"


@settings(max_examples=60, deadline=None)
@given(SETS, SETS)
def test_auroc_counts_pairs_and_knows_only_ranks(ours: list[int], theirs: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in ours for b in theirs]
    value = auroc(ours, theirs)
    assert value == pytest.approx(sum(pairs) / len(pairs))
    assert auroc([math.atan(a / 9) for a in ours], [math.atan(b / 9) for b in theirs]) == pytest.approx(value)
    assert auroc(theirs, ours) == pytest.approx(1 - value)
    assert auroc([-a for a in ours], [-b for b in theirs]) == pytest.approx(1 - value)
    found = delong(ours, theirs)
    assert found.value == pytest.approx(value) and 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low < found.high) or ours * len(theirs) == theirs * len(ours) or len(set(ours + theirs)) <= 2


def test_delong_agrees_with_the_bootstrap() -> None:
    source = np.random.default_rng(1)
    ours, theirs = source.normal(0.8, 1, 120), source.normal(0, 1, 150)
    exact, drawn = delong(ours, theirs), bootstrap(auroc, ours, theirs, draws=800)
    assert exact.value == drawn.value
    assert exact.low == pytest.approx(drawn.low, abs=0.015) and exact.high == pytest.approx(drawn.high, abs=0.015)


def test_delong_covers_the_truth() -> None:
    source, true, held = np.random.default_rng(2), 0.5 * (1 + math.erf(1 / 2)), 0
    for _ in range(300):
        found = delong(source.normal(1, 1, 40), source.normal(0, 1, 40))
        held += found.low <= true <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_sets_that_are_told_apart_have_an_interval_nevertheless() -> None:
    found = delong(range(10, 30), range(5))
    assert (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(0.025 ** (1 / 5))
    assert delong(range(5), range(10, 30)).high == pytest.approx(1 - 0.025 ** (1 / 5))
    with pytest.raises(ValueError, match="two items"):
        delong([1], [2, 3])


def test_tpr_is_told_at_one_false_alarm_in_a_hundred() -> None:
    others = list(range(200))
    assert tpr([198, 197.5, 197, 250], others) == 0.75, "two of 200 may lie above the threshold 197"
    assert tpr([99.5, 98], list(range(99))) == 0.5, "below a hundred none may"


def test_the_order_test_is_a_t_test() -> None:
    from scipy.stats import ttest_1samp

    own, other = np.array([1.0, 3.0, 2.0, 5.0]), np.array([[0.0, 1.0], [2.0, 2.0], [3.0, 2.0], [1.0, 2.0]])
    d = own - other.mean(axis=1)
    expected = ttest_1samp(d, 0, alternative="greater")
    found = order_test(own, other)
    assert found.t == pytest.approx(expected.statistic) and found.p == pytest.approx(expected.pvalue)
    assert order_test([1, 1], [[1], [1]]) == (0.0, 0.5)
    with pytest.raises(ValueError, match="two shards"):
        order_test([1], [[1]])


def test_a_gap_is_reckoned_from_the_spread_between_models() -> None:
    from scipy.stats import t

    found = unexplained(0.30, [0.02, 0.05, 0.05])
    error = np.std([0.02, 0.05, 0.05], ddof=1) * math.sqrt(4 / 3)
    assert found.value == pytest.approx(0.26)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 2) * error)
    assert found.p == pytest.approx(t.sf(0.26 / error, 2))
    with pytest.raises(ValueError, match="three references"):
        unexplained(0.3, [0.1, 0.2])


def test_exposure_by_hand() -> None:
    assert exposure(1, 10**4) == pytest.approx(13.2877, abs=1e-4) and exposure(10**4, 10**4) == 0
    assert draws_to_extract(math.log(0.5), 0.75) == pytest.approx(2), "two tosses: 3 in 4"
    assert draws_to_extract(0.0, 0.5) == 1 and draws_to_extract(-2000.0, 0.5) == math.inf


def test_overlap_by_hand() -> None:
    story = list(range(100, 140))
    row = [1, 2, 3, *story[5:20], 4, 5, *story[30:39]]
    (found,) = overlaps([row], [story, [7] * 30])
    assert found.long == 15 / len(row) and found.short == (15 + 9) / len(row) and found.longest == 15
    assert overlaps([[1, 2, 3]], [[1, 2, 3]]) == [(0.0, 0.0, 0)], "shorter than a run"
    (split,) = overlaps([story[:14]], [story[:7], story[7:14]])
    assert split.short == 0, "no run reaches over a document's end"


def test_blind_baselines_see_style_and_nothing_else() -> None:
    source = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    alike = [" ".join(source.choice(words, 12)) for _ in range(120)]
    assert not blind(alike[:60], alike[60:]).separates
    doubled = [" ".join([*text.split()[:6]] * 2) for text in alike[60:]]
    found = blind(alike[:60], doubled)
    assert found.separates and found.auroc.value > 0.95
    assert "repetition" in found.name, "the words are the same"
    assert np.isfinite(features("")).all()
