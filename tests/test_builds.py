"""Recipes are compared over several builds: the spread between builds is part of the limits, and rightly sized."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.stores import PERPLEXITY, evaluation, fill, numbers, shares
from weighin.harness import cli
from weighin.harness.builds import reseeded
from weighin.harness.spec import parse_spec
from weighin.results.builds import over_builds
from weighin.results.compare import compare
from weighin.results.difference import Comparison, measure
from weighin.results.gate import Rule, judge
from weighin.results.pairs import Pairs
from weighin.results.rows import BuildRow
from weighin.results.store import Store

RNG = np.random.default_rng(7)


def compared(a: np.ndarray, b: np.ndarray, binary: bool) -> Comparison:
    score = {
        "unit": "1" if binary else "nat", "better": "higher" if binary else "lower", "reduce": "mean",
        "modelled": False, "runtime": False, "form": "dense", "source": "measured",
    }  # fmt: skip
    items = [str(i) for i in range(len(a))]
    return measure(Pairs("s", "m", a.astype(float), b.astype(float), np.ones(len(a)), items, 0, score, score))


def two_recipes(rng: np.random.Generator, builds: int, binary: bool) -> list[Comparison]:
    """Recipes that are equally good; each build of the second is off by a chance of its own, larger than the items'."""
    n, found = 150, []
    ease = rng.normal(size=n)
    for _ in range(builds):
        a, b = ease + 0.3 * rng.normal(size=n), ease + 0.3 * rng.normal(size=n) + 0.15 * rng.normal()
        found.append(compared(a > 0, b > 0, True) if binary else compared(a, b, False))
    return found


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("builds", [2, 4])
def test_the_limits_hold_over_builds_and_one_build_is_not_enough(binary: bool, builds: int) -> None:
    """The planted drop of the recipes is 0; 600 studies, so the Monte-Carlo error of 5 % is below 1 point."""
    inside = over = alone = 0
    for _ in range(600):
        found = two_recipes(RNG, builds, binary)
        whole, first = over_builds(found), found[0]
        assert whole.low is not None and whole.high is not None and whole.upper is not None
        assert first.low is not None and first.high is not None
        inside += whole.low <= 0 <= whole.high
        over += whole.upper < 0
        alone += first.low <= 0 <= first.high
    assert inside / 600 >= 0.93 and over / 600 <= 0.07
    assert alone / 600 < 0.85, "the limits of one build are about that build"


def test_chance_in_the_making_can_outweigh_the_items() -> None:
    steady, wild = (
        [compared(np.zeros(80), RNG.normal(size=80) + shift, False) for shift in shifts]
        for shifts in ((0.0, 0.0, 0.0), (-2.0, 0.0, 2.0))
    )
    assert over_builds(steady).between < 0.7 < 0.95 < over_builds(wild).between
    assert over_builds(wild).p_two_sided is not None and over_builds(wild).p_two_sided > 0.5


def built(path: Path, drops: list[int | None]) -> Store:
    """`tuned` loses so many of 400 items in each build; None: the build was not measured."""
    right = [[0] * (drop or 0) + [1] * (200 - (drop or 0)) + [0] * 200 for drop in (0, *drops)]
    store = fill(path, {"base": {"accuracy": shares(right[0])}, "tuned": {"accuracy": shares(right[1])}})
    for number, drop in enumerate(drops[1:], 1):
        found = f"build{number}" if drop is not None else None
        if found:
            store.add_evaluation(evaluation(found, f"tuned~{number}"), shares(right[number + 1]))
        why = None if found else "stage lora failed"
        store.add_build(BuildRow("r1", "tuned", number, "accuracy", f"key-tuned~{number}", found, why))
    return store


def test_a_rule_over_builds_asks_for_builds(tmp_path: Path) -> None:
    rule = Rule("accuracy.acc", "tuned", margin=0.05)
    (alone,) = judge(built(tmp_path / "one.duckdb", [2]), [rule])
    assert alone.outcome == "pass"
    (both,) = judge(built(tmp_path / "two.duckdb", [2, 30]), [rule])
    assert both.outcome == "inconclusive" and "needs more builds" in both.why
    assert both.comparison is not None and both.comparison.builds == 2
    (alike,) = judge(built(tmp_path / "three.duckdb", [2, 2, 2]), [rule])
    assert alike.outcome == "pass" and alike.comparison is not None and alike.comparison.method.endswith("3 builds")


def test_a_build_that_failed_is_not_passed_over(tmp_path: Path) -> None:
    found = compare(built(tmp_path / "w.duckdb", [2, None]), "base", "tuned")
    assert not found.comparisons
    assert found.refusals[0].reason == "build 1 was not measured: stage lora failed"


def test_a_log_metric_has_builds_too(tmp_path: Path) -> None:
    values = RNG.normal(3, 0.2, size=40)
    grid = {
        "base": {"accuracy": numbers(list(values), PERPLEXITY)},
        "tuned": {"accuracy": numbers(list(values + 0.1), PERPLEXITY)},
    }
    store = fill(tmp_path / "w.duckdb", grid)
    store.add_evaluation(evaluation("other", "tuned~1"), numbers(list(values + 0.3), PERPLEXITY))
    store.add_build(BuildRow("r1", "tuned", 1, "accuracy", "key-tuned~1", "other"))
    (found,) = compare(store, "base", "tuned").comparisons
    assert (found.scale, found.builds) == ("log", 2) and found.drop == pytest.approx(0.2)


def test_only_seeds_move_and_each_build_has_its_own() -> None:
    spec = parse_spec({
        "base": "reference:base", "variants": {"a": [{"gptq": {"seed": 5}}], "b": [{"from": "a"}, "int8"]},
        "suites": {"memory": None},
    })  # fmt: skip
    first, second = reseeded(spec, 1), reseeded(spec, 2)
    seeds = [each.chains["a"][0].params["seed"] for each in (spec, first, second)]
    assert len(set(seeds)) == 3 and reseeded(spec, 1) == first
    assert first.chains["b"][0] == first.chains["a"][0], "a shared prefix stays shared"
    assert first.chains["b"][1] == spec.chains["b"][1], "int8 has no seed"
    assert first.suites == spec.suites, "both builds answer the same questions"


@pytest.mark.usefixtures("test_plugins")
def test_run_builds_recipes_anew_and_keeps_them(
    pico_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "recipes.yaml"
    spec.write_text(
        f"base: {{model: '{pico_dir}'}}\n"
        "variants: {noisy: {jitter: {factor: 0.1}}, plain: halve, twice: [{from: noisy}, halve]}\nsuites: {sizes: {}}\n"
    )
    assert cli.main(["run", str(spec), "--replicates", "3"]) == 0
    store = Store(os.environ["WEIGHIN_STORE"])
    rows = store.rows("select * from builds order by label, build")
    assert [(row["label"], row["build"]) for row in rows] == [("noisy", 1), ("noisy", 2), ("twice", 1), ("twice", 2)]
    assert len({row["variant_key"] for row in rows}) == 4 and all(row["evaluation_id"] for row in rows)
    by_key = {row["variant_key"]: row["parent_key"] for row in store.rows("select * from variants")}
    assert [by_key[row["variant_key"]] for row in rows[2:]] == [row["variant_key"] for row in rows[:2]]
    (found,) = compare(store, "noisy", "twice").comparisons
    assert found.builds == 3 and "3 builds" in found.method
    assert compare(store, "base", "plain").comparisons[0].builds == 1
    before = store.rows("select count(*) as n from evaluations")
    assert cli.main(["run", str(spec), "--replicates", "3"]) == 0
    assert store.rows("select count(*) as n from evaluations") == before, "nothing is measured twice"
    assert len(store.rows("select * from builds")) == 8, "and the new run has its builds, too"
    capsys.readouterr()


@pytest.mark.usefixtures("test_plugins")
def test_replicates_without_a_seed_are_refused(
    pico_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "plain.yaml"
    spec.write_text(f"base: {{model: '{pico_dir}'}}\nvariants: {{plain: halve}}\nsuites: {{sizes: {{}}}}\n")
    assert cli.main(["run", str(spec), "--replicates", "2"]) == 2
    assert "no stage of this spec has a seed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["run", str(spec), "--replicates", "0"])
