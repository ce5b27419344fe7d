"""A night judged on real stores: what raises an alarm, what confirms it, what changed, what is green afterwards."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.stores import ACC, START, TTFT, Grid, Setting, evaluation, fill, fill_all, flipped, numbers, run_row, shares
from weighin.results import cusum, ledger
from weighin.results.database import writing
from weighin.results.errors import WeighinError
from weighin.results.fingerprint import bisect, classmates, fingerprints
from weighin.results.history import history
from weighin.results.night import Night, judge_night
from weighin.results.night_files import night_markdown
from weighin.results.records import Metric, Sample
from weighin.results.rows import Machine
from weighin.results.rules import Rule
from weighin.results.store import Store

RATIO = Metric("ratio", "1", better="lower", reduce="median", runtime=True, beside="parent", neutral=1.0)
RULE = Rule("accuracy.acc", "small", margin=0.03)
RIGHT, WRONG = [1] * 300, [0] * 30 + [1] * 270


def weighed(path: Path, night: int, right: Sequence[int] = RIGHT, ratio: float = 1.0) -> Store:
    """A night of `small` beside its base."""
    small = {"accuracy": shares(right), "latency": numbers([ratio], RATIO) + numbers([0.01] * 6, TTFT)}
    base = {"accuracy": shares(RIGHT), "latency": numbers([0.01] * 6, TTFT)}
    return fill(path, {"base": base, "small": small}, Setting(run=name(night), order=24 * night))


def name(night: int) -> str:
    return f"night-{night:03d}"


def never(label: str, suite: str) -> str | None:
    raise AssertionError(f"no re-run of {label}, {suite} was called for")


def rerun(store: Store, samples: Sequence[Sample], asked: list[tuple[str, str]] | None = None) -> Callable[..., str]:
    """Keeps `samples` as a second measurement."""

    def again(label: str, suite: str) -> str:
        if asked is not None:
            asked.append((label, suite))
        row = evaluation(f"again-{label}-{suite}", label, suite, started_at=START + timedelta(days=900))
        store.add_evaluation(row, samples)
        return row.evaluation_id

    return again


def judged(store: Store, night: int, green: int | None, again: Callable[..., str | None] = never) -> Night:
    found = judge_night(store, [RULE], name(night), None if green is None else name(green), again)
    ledger.keep(store, found.run, found.verdicts, against=found.against, watched=found.kept())
    return found


def green_of(store: Store) -> str:
    return ledger.last_green(store, "spec.yaml", "m1")


def new_key(store: Store, run: str, key: str = "other") -> None:
    """The evaluations of a run have a key of their own, as after a change of packages."""
    with writing(store.path, 10) as con:
        con.execute(
            """update evaluations set evaluation_key = evaluation_key || ?, protocol = '{"packages": {"torch": "3"}}'
               where evaluation_id like ?""",
            [key, f"{run}%"],
        )


def test_the_first_night_goes_by_the_specs_own_rules_and_may_be_green(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", 1)
    found = judged(store, 1, None)
    assert found.code == 0 and "small against base" in str(found.verdicts[0].rule)
    assert green_of(store) == name(1)
    assert "the first night: no run of this spec" in night_markdown(store, found)


def test_the_same_scores_are_green_again_however_few_items_there_are(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    for night in (1, 2):
        store = weighed(path, night, [1, 0] * 10)
    found = judged(store, 2, 1)
    assert found.code == 0 and found.verdicts[0].why == "every item as in the green run"
    exact = {(w.variant, w.name): w.why for w in found.watched if w.kind == "exact"}
    assert exact == {
        ("base", "accuracy.acc"): "all 300 items as before",
        ("small", "accuracy.acc"): "all 20 items as before",
    }
    shown = [w for w in found.watched if w.kind == "shown"]
    assert {w.name for w in shown} == {"latency.ttft"} and all("not interleaved" in w.why for w in shown)


def test_one_item_that_differs_under_the_same_key_is_an_alarm(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, 1)
    store = weighed(path, 2, [*RIGHT[:-1], 0])
    asked: list[tuple[str, str]] = []
    found = judged(store, 2, 1, rerun(store, shares([*RIGHT[:-1], 0]), asked))
    (alarm,) = [w for w in found.watched if w.outcome == "fail"]
    assert found.code == 1 and asked == [("small", "accuracy")]
    assert alarm.why == (
        "1 of 300 items differ (1 worse), although weights, data, code and packages are the same; confirmed by a re-run"
    )
    assert alarm.evidence["worst"] == [["item299", 1.0, 0.0]] and alarm.changes == ()
    assert "nothing that the fingerprint covers" in night_markdown(store, found)
    with pytest.raises(WeighinError, match="has passed the gate yet"):
        green_of(store)


def test_an_alarm_that_a_rerun_does_not_repeat_is_none(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, 1)
    store = weighed(path, 2, [*RIGHT[:-1], 0])
    found = judged(store, 2, 1, rerun(store, shares(RIGHT)))
    assert found.code == 3 and not [w for w in found.watched if w.outcome == "fail"]
    assert "this score is not deterministic" in night_markdown(store, found)
    found = judged(store, 2, 1, lambda label, suite: None)
    assert found.code == 3 and "the re-run gave no result" in night_markdown(store, found)


def test_a_drop_under_new_packages_fails_by_the_rule_and_names_them(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, 1)
    weighed(path, 2)
    store = weighed(path, 3, WRONG)
    new_key(store, name(3))
    found = judged(store, 3, 1, rerun(store, shares(WRONG)))
    (verdict,) = found.verdicts
    assert found.code == 1 and verdict.outcome == "fail" and verdict.why.endswith("confirmed by a re-run")
    assert verdict.waived == ("packages.torch",)
    assert [str(change) for change in found.changes[0]] == [
        'protocol.packages.torch: absent -> 3 (since run night-003)',
    ]  # fmt: skip
    assert "- protocol.packages.torch: absent" in night_markdown(store, found).replace("&#95;", "_")
    assert [w.outcome for w in found.watched if w.kind == "exact"] == ["pass", "pass"], "the rule decides"


def test_a_drop_that_no_rule_asks_after_is_an_alarm_and_a_gain_is_none(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, 1, WRONG)
    store = weighed(path, 2, RIGHT)
    new_key(store, name(2))
    assert judge_night(store, [], name(2), name(1), never).code == 0
    store = weighed(path, 3, WRONG)
    found = judge_night(store, [], name(3), name(2), rerun(store, shares(WRONG)))
    assert found.code == 1 and "the score fell from 1 to 0.9" in night_markdown(store, found)


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 nights of one ratio, of which the last six are slower by 5 standard deviations: enough for an alarm."""
    rng = np.random.default_rng(5)
    ratios = np.exp(0.02 * rng.standard_normal(37))
    ratios[31:] *= 1.1
    path = tmp_path_factory.mktemp("slower") / "w.duckdb"
    grids = [{"small": {"latency": numbers([ratio], RATIO)}} for ratio in ratios.tolist()]
    fill_all(path, [(grid, Setting(run=name(n), order=24 * n)) for n, grid in enumerate(grids)])
    return path


@pytest.fixture
def late(slower: Path, tmp_path: Path) -> Store:
    path = tmp_path / "w.duckdb"
    path.write_bytes(slower.read_bytes())
    return Store(path)


def of_series(store: Store, night: int, again: Callable[..., str | None] = never) -> Night:
    found = judge_night(store, [], name(night), None, again)
    ledger.keep(store, found.run, found.verdicts, watched=found.kept())
    return found


def test_a_slower_series_is_an_alarm_once_a_rerun_confirms_it(late: Store) -> None:
    found = of_series(late, 36, rerun(late, numbers([1.1], RATIO)))
    (alarm,) = [w for w in found.watched if w.outcome == "fail"]
    assert (alarm.kind, alarm.variant, alarm.name) == ("series", "small", "latency.ratio")
    assert found.code == 1 and alarm.evidence["sum"] > cusum.H and "confirmed by a re-run" in alarm.why
    (series,) = history(late, "latency.ratio")
    assert [night.run for night in series.nights if night.alarm] == [name(36)]
    assert not series.nights[-1].accepted and len(series.since_accepted()) == 37


def test_a_rerun_on_the_other_side_raises_no_alarm(late: Store) -> None:
    found = of_series(late, 36, rerun(late, numbers([0.98], RATIO)))
    assert found.code == 0 and "not confirmed by a re-run" in night_markdown(late, found)


def test_during_the_burn_in_a_series_is_not_watched(late: Store) -> None:
    found = of_series(late, 20)
    assert [w.why for w in found.watched if w.kind == "series"] == ["night 21: watched in 10 nights"]


def test_an_accepted_alarm_begins_the_series_anew(late: Store) -> None:
    of_series(late, 36, rerun(late, numbers([1.1], RATIO)))
    ledger.keep(late, name(36), [], watched=of_series(late, 30).kept())
    (series,) = history(late, "latency.ratio")
    assert series.nights[-1].accepted and [night.run for night in series.since_accepted()] == [name(36)]
    assert green_of(late) == name(36)


def test_a_cell_without_a_result_keeps_a_night_from_being_green(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    weighed(path, 1)
    grid: Grid = {"base": {"accuracy": shares(RIGHT)}, "small": {"accuracy": shares(RIGHT), "latency": "no clock"}}
    store = fill(path, grid, Setting(run=name(2), order=48))
    store.set_cell(name(2), "base", "accuracy", status="failed", reason="out of memory")
    found = judge_night(store, [], name(2), name(1), never)
    assert found.code == 4
    assert {(w.variant, w.suite, w.why) for w in found.watched if w.kind == "gap"} == {
        ("base", "accuracy", "failed: out of memory"),
        ("small", "latency", "measured in the green run, abstained tonight: no clock"),
    }
    ledger.keep(store, found.run, found.verdicts, watched=found.kept())
    with pytest.raises(WeighinError, match="has passed the gate yet"):
        green_of(store)


def test_a_new_driver_is_the_same_class_of_machine_and_is_named(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", 1)
    for key, gpu, cpu in (("m2", "H200, 550", "cpu"), ("m3", "H200, 560", "cpu"), ("m4", "H200, 560", "other")):
        store.add_machine(Machine(key, "host", "Linux", cpu, 2, 1, gpu, {"cpu": cpu, "gpu": gpu}))
    assert classmates(store, "m2") == ["m2", "m3"] and classmates(store, "m4") == ["m4"]
    grid: Grid = {"base": {"accuracy": shares(RIGHT)}}
    for night, where in ((2, "m2"), (3, "m3"), (4, "m3")):
        fill(store.path, grid, Setting(run=name(night), machine=where, order=24 * night))
    runs = [name(night) for night in (2, 3, 4)]
    prints = fingerprints(store, [(run, f"{run}-base-accuracy") for run in runs])
    assert [str(change) for change in bisect(runs, prints)] == ["driver: 550 -> 560 (since run night-003)"]
    (series,) = history(store, "accuracy.acc")
    assert [[c.field for c in night.changes] for night in series.nights] == [[], ["driver"], []]


def test_a_step_of_a_chain_that_changed_is_named(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", 1)
    old = store.variant("key-small")
    assert old is not None
    store.add_variant(dataclasses.replace(old, variant_key="key-new", params={"bits": 3}))
    row = evaluation("other", "small", "accuracy")
    store.add_evaluation(dataclasses.replace(row, variant_key="key-new"), shares([1], ACC))
    prints = fingerprints(store, [(name(1), f"{name(1)}-small-accuracy"), (name(1), "other")])
    assert [c.field for c in bisect([name(1), "x"], prints)] == ["weights", "weights.1.stage.bits"]


def test_a_run_that_took_its_values_from_another_is_no_night(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", 1)
    store.start_run(
        dataclasses.replace(run_row(), run_id="copy", started_at=START + timedelta(days=9)),
        [("small", "key-small")],
        [("small", "accuracy")],
    )
    store.reuse("copy", [("small", "accuracy", f"{name(1)}-small-accuracy")])
    assert [night.run for night in history(store, "accuracy.acc", variant="small")[0].nights] == [name(1)]


def test_wrong_names_say_what_there_is(tmp_path: Path) -> None:
    store = weighed(tmp_path / "w.duckdb", 1)
    for wrong, said in (
        ({"metric": "accuracy.ac"}, "no metric 'accuracy.ac'. Did you mean 'accuracy.acc'"),
        ({"metric": "nope.acc"}, "no metric 'nope.acc'"),
        ({"metric": "accuracy.acc", "variant": "smal"}, "Did you mean 'small'"),
        ({"metric": "accuracy.acc", "spec": "other"}, "no spec with a run 'other'"),
        ({"metric": "acc"}, "should read SUITE.METRIC"),
    ):
        with pytest.raises(WeighinError, match=said):
            history(store, **wrong)  # type: ignore[arg-type]


def test_flips_that_cancel_out_are_shown_and_pass(tmp_path: Path) -> None:
    a, b = flipped(300, 2, 2)
    path = tmp_path / "w.duckdb"
    weighed(path, 1, a)
    store = weighed(path, 2, b)
    new_key(store, name(2))
    found = judge_night(store, [], name(2), name(1), never)
    told = {w.why for w in found.watched if w.kind == "exact" and w.variant == "small"}
    assert found.code == 0 and told == {"4 of 300 items differ (2 worse, 2 better): not worse as a whole"}
