"""Looks at growing numbers of items: the bound holds the chance of error over all of them together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from weighin.results.errors import WeighinError
from weighin.results.sequential import decided, look_alpha
from weighin.results.statistics import tango_z


@pytest.mark.parametrize(
    ("looks", "critical"),
    [([1, 2], 1.875), ([1, 2, 3], 1.992), ([100, 200, 300, 400], 2.067), ([1, 2, 3, 4, 5], 2.122)],
)
def test_equal_steps_give_pococks_own_constants(looks: list[int], critical: float) -> None:
    """Two-sided 10 % (Jennison & Turnbull 2000, table 2.1) is one-sided 5 % but for both bounds being crossed."""
    assert norm.isf(look_alpha(looks)) == pytest.approx(critical, abs=2e-3)


def test_one_look_is_no_look() -> None:
    assert look_alpha([300]) == look_alpha([]) == 0.05


@pytest.mark.parametrize("looks", [[300, 300], [600, 300], [0, 5]])
def test_looks_must_grow(looks: list[int]) -> None:
    with pytest.raises(WeighinError, match="looks must grow"):
        look_alpha(looks)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=5, unique=True).map(sorted))
def test_a_look_takes_less_than_all_and_more_than_its_share(looks: list[int]) -> None:
    assert 0.05 / len(looks) - 1e-6 <= look_alpha(looks) < 0.05


def test_wider_steps_need_a_higher_bound_and_the_chance_of_error_is_kept() -> None:
    """Looks at 300, 600 and 1200 items: Pocock's 1.992 for equal steps lets 5.3 % through, 2.018 keeps 5 %."""
    looks, rng, draws = np.array([300, 600, 1200]), np.random.default_rng(0), 400_000
    steps = rng.normal(size=(draws, 3)) * np.sqrt(np.diff(looks, prepend=0))
    highest = (steps.cumsum(axis=1) / np.sqrt(looks)).max(axis=1)
    critical = norm.isf(look_alpha(list(looks)))
    assert critical == pytest.approx(2.018, abs=1e-3)
    error = 3 * np.sqrt(0.05 * 0.95 / draws)
    assert abs((highest > critical).mean() - 0.05) < error
    assert (highest > 1.992).mean() > 0.05 + error


@pytest.mark.parametrize("flips", [0.06, 0.12])
def test_a_drop_at_the_margin_passes_at_some_look_at_most_in_five_per_cent(flips: float) -> None:
    """Three looks by Tango's corrected score test, items in a fixed order, truth exactly at the margin of 3 points."""
    looks, margin, rng, draws = [300, 600, 1200], 0.03, np.random.default_rng(1), 4000
    critical = norm.isf(look_alpha(looks))
    shares = [(flips + margin) / 2, (flips - margin) / 2, 1 - flips]
    passed = np.zeros(draws, dtype=bool)
    worse = better = np.zeros(draws, dtype=int)
    for earlier, later in zip([0, *looks], looks, strict=False):
        drawn = rng.multinomial(later - earlier, shares, size=draws)
        worse, better = worse + drawn[:, 0], better + drawn[:, 1]
        passed |= [tango_z(b, c, later, margin) < -critical for b, c in zip(worse, better, strict=True)]
    assert passed.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_what_is_decided() -> None:
    assert decided(["pass", "pass"]) and decided(["fail", "inconclusive"])
    assert not decided(["pass", "inconclusive"])
