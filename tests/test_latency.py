"""Latency: the arithmetic of quantiles and warm-ups, queues on a clock that is ours, scenarios on a real model."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Abstain, Checkpoint
from weighin.harness.model import TransformersModel
from weighin.suites._arrivals import schedule, serve
from weighin.suites._interleave import interleaved
from weighin.suites._planted_latency import _Virtual
from weighin.suites._quantiles import needed, quantile, quantile_interval, warm
from weighin.suites.latency import latency

pytestmark = pytest.mark.usefixtures("one_thread")
TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60)


@given(TIMES, st.floats(0.01, 0.99))
def test_a_quantile_is_one_of_the_values_and_splits_them(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(v <= found for v in values) >= q * len(values) - 1e-9
    assert sum(v < found for v in values) <= q * len(values)


@given(st.lists(st.floats(1e-6, 1e3), min_size=6, max_size=80), st.sampled_from([0.25, 0.5, 0.75]))
def test_limits_hold_their_tails(values: list[float], q: float) -> None:
    """Of the ranks taken, each leaves at most 2.5 % outside; the next ones in would not."""
    from scipy.stats import binom

    n, limits = len(values), quantile_interval(list(range(len(values))), q)
    if limits is None:
        assert n < needed(q)
        return
    low, high = int(limits[0]) + 1, int(limits[1]) + 1
    assert binom.cdf(low - 1, n, q) <= 0.025 < binom.cdf(low, n, q)
    assert binom.sf(high - 1, n, q) <= 0.025 < binom.sf(high - 2, n, q)


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_too_few_values_have_no_limits(q: float, n: int) -> None:
    assert needed(q) == n
    assert quantile_interval(list(range(n)), q) is not None and quantile_interval(list(range(n - 1)), q) is None


def test_a_warm_up_is_found_and_a_drift_is_not_called_one() -> None:
    steady = [1.0, 1.01, 0.99] * 20
    assert warm(steady) == 0
    assert 9 <= (warm([5.0 - 0.4 * i for i in range(10)] + steady) or 0) <= 12
    assert warm([1.0 + i for i in range(60)]) is None
    assert warm([1.0, 2.0]) is None


def test_arrivals_are_a_poisson_process() -> None:
    times = schedule(10.0, 4000, seed=1)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert statistics.fmean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.1, rel=0.05)
    assert schedule(10.0, 5, seed=1) == times[:5] != schedule(10.0, 5, seed=2)


def test_a_wait_counts_from_the_schedule() -> None:
    clock = _Virtual()

    def request() -> list[float]:
        clock.sleep(1.0)
        return [0.25, 1.0]

    served = serve([0.0, 0.5, 4.0], request, clock)
    assert [(s.ttft, s.e2e, s.service) for s in served] == [(0.25, 1.0, 1.0), (0.75, 1.5, 1.0), (0.25, 1.0, 1.0)]


def test_interleaved_calls_are_balanced_and_in_random_order() -> None:
    calls: list[int] = []
    found = list(interleaved(lambda: calls.append(0), lambda: calls.append(1), count=3, rounds=20))
    assert len(found) == 3 and calls.count(0) == calls.count(1) == 60
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    assert {(0, 1), (1, 0)} == set(pairs)
    assert all(0 < seconds < 1 for block in found for seconds in block.wall)


def test_scenarios_on_a_real_model(pico_dir: Path) -> None:
    model = TransformersModel(Checkpoint(pico_dir, "child"), {"parent": Checkpoint(pico_dir, "parent")})
    short = {"requests": 9, "prompt_tokens": 8, "new_tokens": 4, "blocks": 6, "rounds": 1, "batch": 2}
    samples = list(latency(model, scenarios=["single", "offline", "server"], rate=200.0, **short))
    by_name: dict[str, list[float | None]] = {}
    for sample in samples:
        assert sample.metric is not None
        by_name.setdefault(sample.metric.name, []).append(sample.value)
    assert len(by_name["server_ttft"]) == 9 and len(by_name["offline_throughput"]) == 6
    for name in ("ttft", "tpot", "itl", "e2e", "throughput", "server_e2e", "offline_requests"):
        assert all(value is not None and value > 0 for value in by_name[name]), name
    assert by_name["ttft_p99"] == by_name["server_ttft_p99"] == [None]
    refused = next(s for s in samples if s.metric and s.metric.name == "e2e_p99")
    assert "values: a p99 with an interval needs 368" in str(refused.reason)
    assert len(by_name["wall_ratio_parent"]) == 6
    twin = statistics.median(v for v in by_name["cpu_ratio_parent"] if v is not None)
    assert 0.3 < twin < 3, "the same weights twice"
    for metric in ("ttft", "tpot"):
        first = next(s for s in samples if s.metric and s.metric.name == metric)
        assert first.detail["formula"].startswith("t(first") or first.detail["formula"].startswith("(t(last")


def test_a_base_is_timed_alone(pico_dir: Path) -> None:
    model = TransformersModel(Checkpoint(pico_dir, "base"))
    found = [
        s for s in latency(model, requests=6, prompt_tokens=8, new_tokens=3) if s.metric and "ratio" in s.metric.name
    ]
    assert [s.value for s in found] == [None, None] and found[0].reason == "a base has no parent to be timed beside"
    with pytest.raises(Abstain, match="do not fit the model's window of 256"):
        list(latency(model, prompt_tokens=250))
