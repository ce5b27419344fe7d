"""Rules of every kind: shares of the other's value, limits of a variant alone, figures that compare already; what the
gate keeps, and what it writes."""

import html
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores import ACC, DISK, KL, TTFT, Grid, Setting, fill, flipped, numbers, shares
from weighin.results import ledger
from weighin.results.errors import WeighinError
from weighin.results.gate import Bench, Rule, Verdict, judge
from weighin.results.records import Metric, Sample
from weighin.results.store import Store
from weighin.results.verdict_files import as_json, as_junit, as_markdown

RATIO = Metric("cpu_ratio_parent", "1", better="lower", reduce="median", runtime=True, beside="parent", neutral=1.0)
RATE = Metric("rate", "1", better="lower")


def ruled(
    path: Path, grid: Grid, *rules: Rule, bench: Bench | None = None, setting: Setting | None = None
) -> list[Verdict]:
    return judge(fill(path / "w.duckdb", grid, setting or Setting()), rules, bench=bench or Bench())


def alone(path: Path, samples: list[Sample], **rule: Any) -> Verdict:
    assert samples[0].metric is not None
    grid = {"base": {"s": samples}, "small": {"s": samples}}
    (found,) = ruled(path, grid, Rule(f"s.{samples[0].metric.name}", "small", **rule))
    return found


@pytest.mark.parametrize(
    ("margin", "share", "size"), [(0.02, False, 0.02), ("5%", True, 0.05), (" 0.5 %", True, 0.005)]
)
def test_a_margin_is_a_number_or_a_share(margin: Any, share: bool, size: float) -> None:
    rule = Rule("s.m", "small", margin=margin)
    assert (rule.share, rule.size) == (share, pytest.approx(size))


@pytest.mark.parametrize("margin", ["5", "five%", "5%%", "-1%", -0.1, float("nan")])
def test_other_margins_are_refused(margin: Any) -> None:
    with pytest.raises(WeighinError, match="margin must be a number >= 0 or a share"):
        Rule("s.m", "small", margin=margin)


def test_a_limit_takes_no_margin() -> None:
    with pytest.raises(WeighinError, match="takes no margin"):
        Rule("s.m", "small", margin=0.1, limit=1.0)


@pytest.mark.parametrize(("slower", "outcome"), [(1.0, "pass"), (1.04, "pass"), (1.2, "fail")])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_share_of_the_others_value(tmp_path: Path, slower: float, outcome: str, better: Any) -> None:
    rng = np.random.default_rng(3)
    a = rng.uniform(2, 3, size=200)
    b = a * (slower if better == "lower" else 1 / slower) + 0.01 * rng.normal(size=200)
    metric = Metric("cost", "J", better=better)
    grid = {"base": {"s": numbers(list(a), metric)}, "small": {"s": numbers(list(b), metric)}}
    (found,) = ruled(tmp_path, grid, Rule("s.cost", "small", margin="5%"))
    assert found.outcome == outcome, found.why


def test_a_share_of_bytes(tmp_path: Path) -> None:
    grid = {"base": {"s": numbers([1000.0], DISK)}, "small": {"s": numbers([1040.0], DISK)}}
    rules = [Rule("s.disk", "small", margin="5%"), Rule("s.disk", "small", margin="3%")]
    assert [v.outcome for v in ruled(tmp_path, grid, *rules)] == ["pass", "fail"]


@given(st.integers(0, 400), st.floats(0.01, 0.5))
def test_a_share_under_a_limit_is_the_exact_binomial(bad: int, limit: float) -> None:
    from scipy.stats import binom

    from weighin.results.alone import _share
    from weighin.results.difference import Comparison

    plain = Comparison("s", "rate", "1", "lower", "value", limit, bad / 400, bad / 400 - limit, 400, 400)
    values = np.array([1.0] * bad + [0.0] * (400 - bad))
    found = _share(plain, values, 1.0, 0.95)
    assert found.upper is not None and found.p_worse is not None
    assert (found.upper < 0) == (binom.cdf(bad, 400, limit) < 0.05)
    assert found.p_worse == pytest.approx(float(binom.sf(bad - 1, 400, limit)), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "limit", "outcome"),
    [
        ([0.0] * 400, 0.01, "pass"),  # none of 400: below 1 % with 95 %
        ([0.0] * 200, 0.01, "inconclusive"),
        ([1.0] * 40 + [0.0] * 360, 0.05, "fail"),
        ([1.0] * 4 + [0.0] * 396, 0.05, "pass"),
    ],
)
def test_a_rate_under_a_limit(tmp_path: Path, values: list[float], limit: float, outcome: str) -> None:
    found = alone(tmp_path, shares(values, RATE), limit=limit)
    assert found.outcome == outcome and "limit" in found.why


def test_one_answer_of_each_cluster_is_all_that_counts(tmp_path: Path) -> None:
    names = [f"c{i // 20}" for i in range(400)]
    assert alone(tmp_path, shares([0.0] * 400, RATE, clusters=names), limit=0.01).outcome == "inconclusive"


@pytest.mark.parametrize(("limit", "outcome"), [(0.8, "pass"), (0.9, "inconclusive"), (0.99, "fail")])
def test_where_more_is_better_a_limit_is_a_floor(tmp_path: Path, limit: float, outcome: str) -> None:
    assert alone(tmp_path, shares([1.0] * 180 + [0.0] * 20, ACC), limit=limit).outcome == outcome


@pytest.mark.parametrize(("limit", "outcome"), [(0.7, "pass"), (0.6, "inconclusive"), (0.4, "fail")])
def test_a_figure_with_limits_of_its_own(tmp_path: Path, limit: float, outcome: str) -> None:
    auroc = Metric("auroc", "1", better="lower")
    whole = [Sample("all", 0.6, auroc, low=0.55, high=0.65, weight=300)]
    assert alone(tmp_path, whole, limit=limit).outcome == outcome


def test_bytes_under_a_limit(tmp_path: Path) -> None:
    assert alone(tmp_path, numbers([1024.0], DISK), limit=1024.0).outcome == "pass"


@pytest.mark.parametrize(
    ("ratio", "margin", "outcome"), [(1.0, 0.05, "pass"), (1.05, 0.02, "fail"), (1.0, 0.001, "inconclusive")]
)
def test_a_ratio_taken_in_turns_is_held_against_one(tmp_path: Path, ratio: float, margin: float, outcome: str) -> None:
    """Also the planted truth of a slowed variant: blocks 5 % slower than the parent are blocked at a margin of 2 %."""
    blocks = ratio + np.linspace(-0.01, 0.01, 40)
    (found,) = ruled(
        tmp_path,
        {"base": {"s": numbers([None], RATIO)}, "small": {"s": numbers(list(blocks), RATIO)}},
        Rule("s.cpu_ratio_parent", "small", margin=margin),
    )
    assert found.outcome == outcome, found.why
    assert found.comparison is not None and found.comparison.method == "sign test"


def test_a_ratio_to_the_parent_says_nothing_of_another(tmp_path: Path) -> None:
    blocks = numbers([1.0] * 40, RATIO)
    grid = {"base": {"s": blocks}, "small": {"s": blocks}, "other": {"s": blocks}}
    (found,) = ruled(tmp_path, grid, Rule("s.cpu_ratio_parent", "small", against="other", margin=0.1))
    assert found.outcome == "inconclusive" and "compares small with its parent, which other is not" in found.why


def test_times_taken_one_after_the_other_are_told_what_to_ask_instead(tmp_path: Path) -> None:
    """The requests of two runs are not the same items: neither their number nor their names need match."""
    grid = {
        "base": {"s": numbers([1.0] * 7, TTFT) + numbers([None], RATIO)},
        "small": {"s": numbers([2.0] * 9, TTFT) + numbers([2.0] * 9, RATIO)},
    }
    (found,) = ruled(tmp_path, grid, Rule("s.ttft", "small", margin="5%"))
    assert found.outcome == "inconclusive"
    assert found.why == "not interleaved; ask s.cpu_ratio_parent (beside its parent), measured in turns"
    assert found.comparison is not None and (found.comparison.value_a, found.comparison.value_b) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (numbers([0.1] * 9, KL, "modelled"), "modelled"),
        (numbers([0.1] * 3, KL), "fewer than 5 items"),
        (numbers([None], KL), "not measured"),
        (numbers([0.1] * 4, TTFT), "too few values for the limits of a median"),
    ],
)
def test_what_a_limit_cannot_judge(tmp_path: Path, samples: list[Sample], reason: str) -> None:
    found = alone(tmp_path, samples, limit=1.0)
    assert (found.outcome, found.why) == ("inconclusive", reason)


def test_unlike_protocols_are_inconclusive_unless_waived_and_the_waiver_is_told(tmp_path: Path) -> None:
    a, b = flipped(300, 0, 0)
    grid = {"base": {"accuracy": shares(a)}, "small": {"accuracy": shares(b)}}
    setting = Setting(protocols={"small": {"dtype": "float16"}})
    rule = Rule("accuracy.acc", "small", margin=0.03)
    (found,) = ruled(tmp_path, grid, rule, setting=setting)
    assert found.outcome == "inconclusive" and "dtype" in found.why
    (tmp_path / "b").mkdir()
    (waived,) = ruled(tmp_path / "b", grid, rule, bench=Bench(waive=["dtype"]), setting=setting)
    assert waived.outcome == "pass" and waived.waived == ("dtype",)


def kept(path: Path) -> tuple[Store, list[Verdict]]:
    """A store of two runs and the verdicts on the second: one rule fails, one passes, one is only watched."""
    a, b = flipped(500, 60, 4)
    grid = {
        "base": {"accuracy": shares(a), "s": numbers([9.0], DISK)},
        "small": {"accuracy": shares(b), "s": numbers([8.0], DISK)},
    }
    store = fill(path / "w.duckdb", grid, Setting(run="r1"))
    rules = [
        Rule("accuracy.acc", "small", margin=0.03),
        Rule("s.disk", "small"),
        Rule("s.disk", "base", limit=5, role="watch"),
    ]
    return store, judge(store, rules)


def test_verdicts_are_kept_with_their_evidence(tmp_path: Path) -> None:
    store, found = kept(tmp_path)
    ledger.keep(store, "r1", found)
    rows = store.rows("select * from verdicts order by position")
    assert [(r["metric"], r["outcome"]) for r in rows] == [
        ("accuracy.acc", "fail"), ("s.disk", "pass"), ("s.disk", "fail"),
    ]  # fmt: skip
    assert rows[0]["evidence"]["flips_worse"] == 60 and rows[0]["rule"]["margin"] == 0.03
    with pytest.raises(WeighinError, match=r"no run of spec\.yaml on this machine has passed the gate yet"):
        ledger.last_green(store, "spec.yaml", "m1")


def test_the_last_green_run_is_the_newest_whose_newest_judgement_passes(tmp_path: Path) -> None:
    a, b = flipped(500, 0, 0)
    grid = {"base": {"accuracy": shares(a)}, "small": {"accuracy": shares(b)}}
    rule = Rule("accuracy.acc", "small", margin=0.03)
    for order, run in enumerate(("one", "two", "three")):
        store = fill(tmp_path / "w.duckdb", grid, Setting(run=run, order=order))
        ledger.keep(store, run, judge(store, [rule], run))
    assert ledger.last_green(store, "spec.yaml", "m1") == "three"
    assert ledger.last_green(store, "spec.yaml", "m1", "three") == "two"
    with pytest.raises(WeighinError, match="passed the gate yet"):
        ledger.last_green(store, "spec.yaml", "m2")
    (verdict,) = judge(store, [rule], "three", Bench(against="two"))
    assert verdict.outcome == "pass" and verdict.sides[0].run_id == "two"
    assert str(verdict.rule) == "small against two/small, margin 0.03"


def test_json_says_everything(tmp_path: Path) -> None:
    store, found = kept(tmp_path)
    told = json.loads(as_json(store, found))
    assert (told["release"], told["exit_code"], len(told["verdicts"])) == ("fail", 1, 3)
    assert told["verdicts"][0]["evidence"]["method"] == "Tango"


def test_junit_counts_failures_and_watches(tmp_path: Path) -> None:
    store, found = kept(tmp_path)
    suite = ElementTree.fromstring(as_junit(store, found).encode())
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]


def test_markdown_shows_old_and_new_flips_and_lineage(tmp_path: Path) -> None:
    store, found = kept(tmp_path)
    text = as_markdown(store, found)
    assert text.startswith("## Weighin: ❌ fail")
    assert (
        "right before, wrong now" in text
        and text.count("| item") == 6
        and "**small**: base (bits=4) → stage (bits=4)" in text
    )


@given(st.text())
def test_outside_text_is_never_markup(text: str) -> None:
    from weighin.results.verdict_files import _plain, cell

    assert not set("<>|\n`*[]\\") & set(cell(text))
    assert html.unescape(cell(text)).split() == text.split(), "what is read is the text itself"
    ElementTree.fromstring(ElementTree.tostring(_element(_plain(text))))


def _element(text: str) -> ElementTree.Element:
    made = ElementTree.Element("a", name=text)
    made.text = text
    return made
