"""A comparison as tables: differences with their verdicts, items that flipped, what was refused. No Streamlit."""

from collections.abc import Sequence

import pandas as pd

from weighin.leaderboard.frames import short
from weighin.results.compare import Comparison, Report
from weighin.results.items import MOST, Item
from weighin.results.render import MISSING, interval, quantity

LEVEL = 0.05
WORSE, BETTER, OPEN = "worse", "better", "not told apart"


def verdict(found: Comparison) -> str:
    """What a comparison shows of the second variant, in a word or two."""
    if found.better == "none":
        return "neither way is better"
    if found.method == "counted":
        return WORSE if found.drop > 0 else BETTER if found.drop < 0 else "the same"
    if found.caveat is not None or found.p_two_sided is None:
        return f"no test: {found.caveat or 'one value'}"
    if found.p_two_sided >= LEVEL:
        return OPEN
    return WORSE if found.drop > 0 else BETTER


def differences(report: Report) -> pd.DataFrame:
    """One row a metric; what is worse first, then what is better."""
    order = {WORSE: 0, BETTER: 1, OPEN: 2}
    rows = sorted(report.comparisons, key=lambda found: order.get(verdict(found), 3))
    return pd.DataFrame(
        {
            "metric": [found.name for found in rows],
            "verdict": [verdict(found) for found in rows],
            sides(report)[0]: [quantity(found.value_a, found.unit) for found in rows],
            sides(report)[1]: [quantity(found.value_b, found.unit) for found in rows],
            "drop": [_drop(found) for found in rows],
            "n": [found.n for found in rows],
            "lost": [_count(found.flips_worse) for found in rows],
            "won": [_count(found.flips_better) for found in rows],
            "p": [MISSING if found.p_two_sided is None else f"{found.p_two_sided:.2g}" for found in rows],
            "seen from": [quantity(found.mde, _unit(found)) for found in rows],
            "method": [found.method for found in rows],
        }
    )


def sides(report: Report) -> tuple[str, str]:
    """Headers of the two variants' columns, which no label can make the same as another column's."""
    return f"from: {short(report.a.name, 40)}", f"to: {short(report.b.name, 40)}"


def _unit(found: Comparison) -> str:
    return "1" if found.scale == "log" else found.unit


def _drop(found: Comparison) -> str:
    log = " (log ratio)" if found.scale == "log" else ""
    return interval(found.drop, found.low, found.high, _unit(found)) + log


def _count(number: int | None) -> str:
    return MISSING if number is None else str(number)


def sentence(report: Report) -> str:
    """The whole comparison in one sentence."""
    found = [verdict(each) for each in report.comparisons]
    untold = len(found) - found.count(WORSE) - found.count(BETTER) - found.count(OPEN)
    a, b = short(report.a.name), short(report.b.name)
    return (
        f"Of {len(found)} metrics that both have, {b} is shown to be worse than {a} in {found.count(WORSE)} and better "
        f"in {found.count(BETTER)}; {found.count(OPEN)} cannot be told apart, {untold} have no test."
    )


def refusals(report: Report) -> pd.DataFrame:
    """What was not compared, why, and the fields of the protocols that differ."""
    rows = [(r.suite, "all" if r.metric == "*" else r.metric, r.reason, ", ".join(r.fields)) for r in report.refusals]
    return pd.DataFrame(rows, columns=["suite", "metric", "reason", "fields that differ"], dtype="object")


def with_items(report: Report) -> list[str]:
    """Metrics that have several items."""
    return [found.name for found in report.comparisons if found.n > 1]


def first(report: Report, quality: str | None) -> str | None:
    """The metric to begin with: the one that stands for quality, else the one with the most answers lost and won."""
    names = with_items(report)
    if quality in names:
        return quality
    found = [each for each in report.comparisons if each.flips_worse is not None and each.n > 1]
    best = max(found, key=lambda each: (each.flips_worse or 0) + (each.flips_better or 0), default=None)
    return best.name if best else None


def way(report: Report, name: str) -> str:
    """Which way a metric is better."""
    return next(found.better for found in report.comparisons if found.name == name)


def _went(item: Item, better: str) -> str:
    if item.a is None or item.b is None:
        return "on one side only"
    rose = item.b > item.a
    return "changed" if better == "none" else "won" if rose == (better == "higher") else "lost"


def count(found: Sequence[Item], better: str) -> str:
    """How many items went which way."""
    went = [_went(item, better) for item in found]
    told = ", ".join(f"{went.count(each)} {each}" for each in dict.fromkeys(went))
    more = f", the first {MOST}" if len(found) == MOST else ""
    return f"{len(found)} item{'s differ' if len(found) > 1 else ' differs'}{more}: {told}."


def items(found: Sequence[Item], names: tuple[str, str], better: str) -> pd.DataFrame:
    """One row an item that differs."""
    a, b = names
    return pd.DataFrame(
        {
            "went": [_went(item, better) for item in found],
            "prompt": [short(item.prompt, 400) for item in found],
            "right": [short(item.target, 200) for item in found],
            a: [_gave(item, 0) for item in found],
            b: [_gave(item, 1) for item in found],
        },
        dtype="object",
    )


def _gave(item: Item, side: int) -> str:
    value = (item.a, item.b)[side]
    number = MISSING if value is None else f"{value:.4g}"
    text = item.gave[side].text
    return f"{short(text, 200)} ({number})" if text else number


def choices(item: Item, names: tuple[str, str]) -> pd.DataFrame:
    """Each choice with the log-likelihood that either variant gives it, in nats, and whose answer it is."""
    if not item.choices or not all(gave.scores for gave in item.gave):
        return pd.DataFrame()
    columns: dict[str, list[object]] = {
        "choice": [choice.strip() for choice in item.choices],
        "right": ["✓" if choice.strip() == item.target else "" for choice in item.choices],
    }
    for name, gave in zip(names, item.gave, strict=True):
        scores = [f"{score:.3f}" for score in gave.scores] + [MISSING] * (len(item.choices) - len(gave.scores))
        marks = [" ←" if choice.strip() == gave.text else "" for choice in item.choices]
        columns[f"{name} [nat]"] = [score + mark for score, mark in zip(scores, marks, strict=False)]
    return pd.DataFrame(columns, dtype="object")
