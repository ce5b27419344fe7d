"""The chart's promises by simulation: its false alarms and its detections, whatever the noise is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.results import cusum
from weighin.results.statistics import Floats

NIGHTS, AT = 90, 60
"""Nights watched after the burn-in, and the night on which a shift is planted."""
NOISES = ("iid", "heavy", "spiky")


def noise(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Noise of standard deviation 1: normal; Student's t of 2.5 degrees; normal with spikes on 3 % of the nights."""
    if kind == "iid":
        return rng.standard_normal(shape)
    if kind == "heavy":
        return rng.standard_t(2.5, shape) / math.sqrt(5)
    spikes = (rng.random(shape) < 0.03) * rng.exponential(8.0, shape)
    return (rng.standard_normal(shape) + spikes) / math.sqrt(1 + 0.03 * 128 - (0.03 * 8) ** 2)


def first_alarm(values: Floats, again: Floats | None = None) -> Floats:
    """The first night of an alarm, infinite without one; with `again`, of one that the re-run confirms."""
    found = cusum.scores(values)
    alarms = cusum.sums(found) > cusum.H
    if again is not None:
        for night in np.flatnonzero(alarms.any(axis=0)):
            alarms[:, night] &= cusum.score(values[:, :night], again[:, night]) > cusum.K
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1), np.inf)


def simulate(kind: str, series: int, *, confirmed: bool) -> tuple[float, float]:
    """The shares of series with a false alarm in 90 nights, and of those without one in which a shift of 2 standard
    deviations is found within 14 nights."""
    rng = np.random.default_rng(7)
    shape = series, cusum.BURN_IN + NIGHTS
    same, again = noise(kind, shape, rng), noise(kind, shape, rng)
    false = np.isfinite(first_alarm(same, again if confirmed else None)).mean()
    shape = series, AT + 14
    same, again = noise(kind, shape, rng), noise(kind, shape, rng)
    same[:, AT:] += 2
    again[:, AT:] += 2
    first = first_alarm(same, again if confirmed else None)
    return float(false), float(np.isfinite(first[first >= AT]).mean())


@pytest.mark.parametrize("confirmed", [False, True], ids=["alarms", "confirmed"])
@pytest.mark.parametrize("kind", NOISES)
def test_few_false_alarms_and_nearly_every_shift(kind: str, confirmed: bool) -> None:
    false, found = simulate(kind, 2000, confirmed=confirmed)
    assert false <= 0.06 + 1.645 * math.sqrt(0.06 * 0.94 / 2000)
    assert found >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("confirmed", [False, True], ids=["alarms", "confirmed"])
@pytest.mark.parametrize("kind", NOISES)
def test_the_promise_holds_beyond_the_error_of_the_simulation(kind: str, confirmed: bool) -> None:
    series = 40_000
    false, found = simulate(kind, series, confirmed=confirmed)
    assert false + 2.58 * math.sqrt(false * (1 - false) / series) <= 0.06, false
    assert found - 2.58 * math.sqrt(found * (1 - found) / series) >= 0.95, found


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=50))
def test_only_the_order_counts(values: list[int]) -> None:
    plain = cusum.chart([float(v) for v in values])
    assert cusum.chart([math.atan(v / 100) for v in values]) == plain
    assert plain.total >= 0 and plain.watched == (len(values) > cusum.BURN_IN)


def test_nothing_is_summed_during_the_burn_in() -> None:
    rising = [float(v) for v in range(cusum.BURN_IN)]
    assert cusum.chart(rising).total == 0
    assert cusum.chart([*rising, 100.0]).total > 0


def test_equal_nights_and_better_ones_raise_nothing() -> None:
    assert cusum.chart([1.0] * 200).total == 0
    assert not cusum.chart([float(-v) for v in range(200)]).alarm
    with pytest.raises(ValueError, match="a night"):
        cusum.chart([])


def test_a_rerun_confirms_only_on_the_alarming_side() -> None:
    before = [float(v) for v in range(40)]
    assert cusum.confirms(before, 41.0) and cusum.confirms(before, 35.0)
    assert not cusum.confirms(before, 20.0) and not cusum.confirms(before, -1.0)


def test_nights_that_depend_on_each_other_are_told() -> None:
    rng = np.random.default_rng(3)
    values = [0.0]
    for step in rng.standard_normal(119):
        values.append(0.7 * values[-1] + step)
    lag = cusum.chart(values).lag
    assert lag is not None and 0.4 < lag < 0.9
    assert cusum.chart(list(rng.standard_normal(120))).lag is None
