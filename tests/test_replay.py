"""The gate replayed on its own data: error rates against the nominal, and against what is planted."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.stores import DISK, KL, START, Grid, evaluation, fill, numbers, run_row, shares
from weighin.results import rates
from weighin.results.replay import Replay, replay
from weighin.results.rules import Rule
from weighin.results.store import Store


def store_of(path: Path, worse: float = 0.0) -> Store:
    """600 questions in 60 passages, of which one in five flips as a whole, up or down; numbers on 200; bytes."""
    rng = np.random.default_rng(2)
    names = [f"c{i // 10}" for i in range(600)]
    a = (rng.random(600) < 0.6).astype(int)
    whole = np.repeat(rng.choice([-1, 0, 1], size=60, p=[0.1, 0.8, 0.1]), 10)
    b = np.where(whole == 0, a, (whole + 1) // 2)
    x = rng.uniform(0, 1, size=200)
    y = x + 0.1 * rng.normal(size=200) + worse
    grid: Grid = {
        "base": {"accuracy": shares(list(a), clusters=names), "s": [*numbers(list(x), KL)], "d": numbers([9.0], DISK)},
        "small": {"accuracy": shares(list(b), clusters=names), "s": [*numbers(list(y), KL)], "d": numbers([8.0], DISK)},
    }
    return fill(path / "w.duckdb", grid)


RULES = [Rule("accuracy.acc", "small", margin=0.15), Rule("s.kl", "small", margin=0.03), Rule("d.disk", "small")]


def replayed(path: Path, draws: int, worse: float = 0.0) -> Replay:
    return replay(store_of(path, worse), RULES, draws=draws, seed=1)


def test_the_rates_are_held_on_clustered_data(tmp_path: Path) -> None:
    found = replayed(tmp_path, 400)
    assert found.alarms.interval[0] <= 0.05
    assert [rate.draws for rate in found.unsafe] == [400, 400]
    assert all(rate.interval[0] <= 0.05 for rate in found.unsafe)
    assert found.releases.value > 0.5  # and yet it passes what has not changed
    assert found.left_out == ("d.disk: counted, which has no error",)


def test_what_really_happened_does_not_matter(tmp_path: Path) -> None:
    """The signs are random: a true difference in the data makes no more alarms, though it widens the spread."""
    assert replayed(tmp_path, 200, worse=0.2).alarms.interval[0] <= 0.05


def test_forgotten_clusters_show_as_alarms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay swaps whole clusters; a gate that took each item for its own would alarm too often, and is caught."""
    from weighin.results import weighing

    blind = weighing.measure

    def forgetful(pairs, level=0.95):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return blind(replace(pairs, clusters=[str(i) for i in range(len(pairs.a))]), level)

    store, strict = store_of(tmp_path), [Rule("accuracy.acc", "small", margin=0.01)]
    assert replay(store, strict, draws=400).alarms.interval[0] <= 0.05
    monkeypatch.setattr(weighing, "measure", forgetful)
    assert replay(store, strict, draws=400).alarms.interval[0] > 0.05


def test_watched_rules_and_limits_are_left_out(tmp_path: Path) -> None:
    rules = [Rule("s.kl", "small", limit=1.0), Rule("s.kl", "small", margin=0.1, role="watch")]
    found = replay(store_of(tmp_path), rules, draws=5)
    assert found.unsafe == () and len(found.left_out) == 1 and "a limit compares nothing" in found.left_out[0]


def test_rates_are_kept_and_told(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    assert "were not measured" in rates.in_words(store, "r1")
    rows = rates.kept(store, "r1", replay(store, RULES, draws=50), 1.0)
    assert [row.instrument for row in rows] == ["false alarm", "false alarm", "unsafe pass", "unsafe pass"]
    said = rates.in_words(store, "r1")
    assert said.startswith("gate: on this run's data false alarms at most ") and "unsafe passes at most" in said


def test_rates_are_those_of_a_second_run_with_nothing_left_to_measure(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    rates.kept(store, "r1", replay(store, RULES, draws=50), 1.0)
    cells = [(r["label"], r["suite"], r["evaluation_id"]) for r in store.rows("select * from cells")]
    runs = {
        "r2": (run_row("r2"), cells),
        "other rules": (replace(run_row("other rules"), spec={"gate": []}), cells),
        "other data": (run_row("other data"), [(*cells[0][:2], "another"), *cells[1:]]),
        "less": (run_row("less"), cells[1:]),
    }
    for run, (row, held) in runs.items():
        store.start_run(
            row, [(label, f"key-{label}") for label in dict.fromkeys(c[0] for c in cells)], [each[:2] for each in held]
        )
        store.reuse(run, held)
    known = [run for run in runs if "were not measured" not in rates.in_words(store, run)]
    assert known == ["r2"] and rates.in_words(store, "r2") == rates.in_words(store, "r1")


def test_half_of_the_items_alarm_no_more(tmp_path: Path) -> None:
    found = replayed(tmp_path, 400)
    assert found.resplit.draws == 400 and found.resplit.interval[0] <= 0.05
    assert found.rerun is None, "nothing was measured twice"


def test_what_was_measured_twice_is_replayed(tmp_path: Path) -> None:
    """A second measurement of the judged side: its noise alone must not alarm; one that is alike tells nothing."""
    store, rng = store_of(tmp_path), np.random.default_rng(3)
    old = store.rows(
        """select i.value from item_values i join cells c using (evaluation_id)
           where c.label = 'small' and c.suite = 's' order by cast(replace(item, 'item', '') as integer)"""
    )
    values = np.array([row["value"] for row in old])
    store.add_evaluation(evaluation("same", "small", "s", started_at=START), numbers(list(values), KL))
    assert replay(store, RULES, draws=5).rerun is None
    noisy = list(values + 0.05 * rng.normal(size=len(values)))
    store.add_evaluation(evaluation("again", "small", "s", started_at=START + timedelta(days=1)), numbers(noisy, KL))
    found = replay(store, RULES, draws=300, seed=2).rerun
    assert found is not None and found.draws == 300 and found.interval[0] <= 0.05
    kept = rates.kept(store, "r1", replay(store, RULES, draws=20), 1.0)
    assert [row.plant.split(",")[0] for row in kept][:3] == ["nothing changed", "nothing changed", "the same"]
