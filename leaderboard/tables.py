"""Rows of the store as tables: the leaderboard, what is missing and why, every figure. No Streamlit."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd

from weighin.leaderboard import bars
from weighin.leaderboard.frames import ALL, Board, Measure, Row, with_cards
from weighin.results.lookup import split_metric
from weighin.results.render import MISSING, interval, quantity
from weighin.results.tiers import Ranking

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler


def table(board: Board, chosen: Sequence[Measure]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a variant: numbers in base units to sort by, and the same shape in words to show.

    Columns are pairs (suite, header), `identity` last. A word cell holds the value with its interval, n and whatever
    a reader must know of it (modelled, dense kernel), or the status of the cell that gave no number.
    """
    numbers: dict[tuple[str, str], list[Any]] = {}
    words: dict[tuple[str, str], list[str]] = {}
    index = board.index
    for measure in chosen:
        rows = [_score(index, variant, measure) for variant in board.variants]
        key = (measure.suite, measure.header)
        numbers[key] = [None if row is None else row["value"] for row in rows]
        words[key] = [figure(row, measure.unit) for row in rows]
    frame = pd.DataFrame({key: pd.Series(values, dtype="float64") for key, values in numbers.items()})
    text = pd.DataFrame(words, dtype="object")
    for header, column, unit in (("disk [B]", "disk_bytes", "B"), ("memory [B]", "memory_bytes", "B")):
        frame["identity", header] = pd.Series([card[column] for card in board.cards], dtype="float64")
        text["identity", header] = [quantity(card[column], unit) for card in board.cards]
    for header, facts in _identity(board.cards).items():
        frame["identity", header] = text["identity", header] = facts
    names = pd.Index(board.variants, name="variant", dtype="object")
    columns = pd.MultiIndex.from_tuples([tuple(column) for column in frame.columns])
    return frame.set_axis(names).set_axis(columns, axis=1), text.set_axis(names).set_axis(columns, axis=1)


def ranked(board: Board, ranking: Ranking, chosen: Sequence[Measure]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`table` with two columns before it: the tier, where there are tiers, and the interval as a picture.

    The rows are the board's variants as they stand; the metric that ranks leads the figures.
    """
    suite, metric = split_metric(ranking.metric)
    lead = [m for m in board.measures if (m.suite, m.metric) == (suite, metric)]
    numbers, words = table(board, [*lead, *(m for m in chosen if m not in lead)])
    over = bars.scale([limits(board, label, suite, metric) for label in ranking.variants])
    drawn = [bars.address(limits(board, label, suite, metric), over) for label in board.variants]
    tiers = [ranking.tier(label) for label in board.variants]
    for frame in (numbers, words):
        frame.insert(0, (suite, "95 % interval"), drawn)
    if ranking.tiers:
        numbers.insert(0, ("", "tier"), pd.Series(tiers, dtype="Int64", index=numbers.index))
        words.insert(0, ("", "tier"), [MISSING if tier is None else str(tier) for tier in tiers])
    return numbers, words


def limits(board: Board, label: str, suite: str, metric: str) -> bars.Limits:
    """A variant's value in a metric with its interval."""
    row = board.index.get((label, suite, metric))
    return (None, None, None) if row is None else (row["value"], row["ci_low"], row["ci_high"])


def ordered(board: Board, ranking: Ranking, keep: Collection[str]) -> Board:
    """The board with the variants of `keep` only, the ranking's first in its order, then those without a figure."""
    place = {label: number for number, label in enumerate(ranking.variants)}
    cards = [card for card in board.cards if card["variant"] in keep]
    return with_cards(board, sorted(cards, key=lambda card: place.get(card["variant"], len(place))))


def styled(numbers: pd.DataFrame, words: pd.DataFrame, pictures: Collection[int] = ()) -> "Styler":
    """A table that shows the words and sorts by the numbers; columns at `pictures` stay as they are."""
    shown = numbers.style
    for place, column in enumerate(numbers.columns):
        if place in pictures:
            continue
        shown = shown.format(_in_turn(words.iloc[:, place]), subset=[column])
    return shown


def widths(words: pd.DataFrame) -> list[int]:
    """Pixels that each column's longest word or header fills, within reason."""
    longest = [max(map(len, [*column, name[-1]])) for name, column in words.items()]  # type: ignore[index]
    return [min(max(70, 7 * length + 22), 320) for length in longest]


def _in_turn(texts: Iterable[str]) -> Callable[[object], str]:
    """A formatter that gives one text after the other: pandas asks row by row and names no row."""
    turns = cycle(texts)
    return lambda _: next(turns)


def _identity(cards: Iterable[Row]) -> dict[str, list[str]]:
    """What each variant turned out to be, and what it was made from."""
    facts: dict[str, list[str]] = {"form": [], "kernel": [], "made by": []}
    for card in cards:
        facts["form"].append(card["form"] or MISSING)
        facts["kernel"].append(card["kernel"] or MISSING)
        made = f"{card['stage']} of {card['parent'] or 'an unnamed checkpoint'}" if card["stage"] else "the base"
        if (card["params"] or {}).get("origin"):
            made = "imported"
        facts["made by"].append(made if card["variant_key"] else "a stage failed")
    return facts


def _score(index: dict[tuple[str, str, str], Row], variant: str, measure: Measure) -> Row | None:
    """The score of a variant in a column, or the row that says why its cell gave none."""
    row = index.get((variant, measure.suite, measure.metric))
    if row is not None and (row["unit"] or "1") == measure.unit:
        return row
    return index.get((variant, measure.suite, ALL))


def figure(row: Row | None, unit: str) -> str:
    """A score in words: value, interval, remarks and n; without a value its status, without a row a dash."""
    if row is None:
        return MISSING
    if row["value"] is None:
        return str(row["status"])
    marks = [interval(row["value"], row["ci_low"], row["ci_high"], unit), *_remarks(row), f"n {row['n']}"]
    return " · ".join(marks)


def _remarks(row: Row) -> list[str]:
    """How a figure came about where it was not simply measured, in a word each."""
    found = [] if row["source"] in ("measured", None) else [str(row["source"])]
    if str(row["eligible_reason"] or "").startswith("dense kernel"):
        found.append("dense kernel")
    return found


def absences(board: Board) -> pd.DataFrame:
    """What has no number, and why: one row a cell or metric, in the spec's order."""
    index = board.index
    known = board.measures
    found = []
    place = {label: number for number, label in enumerate(board.variants)}
    for cell in sorted(board.cells, key=lambda cell: (cell["suite"], place.get(cell["variant"], len(place)))):
        variant, suite = cell["variant"], cell["suite"]
        whole = index.get((variant, suite, ALL))
        if whole is not None:
            found.append((variant, suite, "all", whole["status"], whole["reason"]))
        elif cell["status"] in ("planned", "running"):
            turn = "is being measured" if cell["status"] == "running" else "its turn has not come"
            found.append((variant, suite, "all", cell["status"], turn))
        else:
            for m in known:
                if m.suite == suite and (why := _why(index, variant, m)):
                    found.append((variant, suite, m.metric, *why))
    return pd.DataFrame(found, columns=["variant", "suite", "metric", "status", "reason"], dtype="object")


def _why(index: dict[tuple[str, str, str], Row], variant: str, measure: Measure) -> tuple[str, str] | None:
    """Status and reason where a variant has no value in a column, None where it has one."""
    row = _score(index, variant, measure)
    if row is None:
        return "abstained", "the suite gave no such metric for this variant"
    return None if row["value"] is not None else (row["status"], row["reason"])


def figures(board: Board) -> pd.DataFrame:
    """Every number of the run in base units, with its interval, n, source and the reason for whatever is missing."""
    rows = [
        {
            "suite": row["suite"],
            "metric": "all" if row["metric"] == ALL else row["metric"],
            "variant": row["variant"],
            "value": row["value"],
            "95 % low": row["ci_low"],
            "95 % high": row["ci_high"],
            "unit": row["unit"],
            "n": row["n"],
            "source": row["source"],
            "note": _note(row),
        }
        for row in board.scores
    ]
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["suite", "metric", "variant", "value"])
    numeric = [name for name in ("value", "95 % low", "95 % high") if name in frame]
    return frame.astype(dict.fromkeys(numeric, "float64"))


def _note(row: Row) -> str:
    if row["value"] is None:
        return f"{row['status']}: {row['reason']}"
    notes = [str(row["eligible_reason"])] if row["eligible_reason"] else []
    if row["ci_low"] is None:
        notes.append(f"no interval: {row['ci_reason']}")
    return "; ".join(notes)


def instruments(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a suite: whether it has recovered planted truth on the run's machine."""
    return pd.DataFrame(
        {
            "suite": [row["suite"] for row in rows],
            "on planted truth": [row["verdict"] for row in rows],
            "instruments": [row["tried"] for row in rows],
            "tried": [f"{row['tried_at']:%Y-%m-%d}" if row["tried_at"] else "" for row in rows],
        }
    )


def tries(rows: Sequence[Row]) -> pd.DataFrame:
    """One row an instrument and planted value: what it recovered, and what it had to."""
    return pd.DataFrame(
        {
            "": ["pass" if row["passed"] else "FAIL" for row in rows],
            "suite": [row["suite"] for row in rows],
            "instrument": [row["instrument"] for row in rows],
            "planted": [row["plant"] for row in rows],
            "recovered": [interval(row["recovered"], row["low"], row["high"], row["unit"]) for row in rows],
            "unit": [row["unit"] for row in rows],
            "target": [row["target"] for row in rows],
            "reason": [row["reason"] or "" for row in rows],
        },
        dtype="object",
    )


def tiles(card: Row) -> list[tuple[str, str]]:
    """Four facts of a variant for its head."""
    count = card["parameters"]
    return [
        ("On disk", quantity(card["disk_bytes"], "B")),
        ("Resident", quantity(card["memory_bytes"], "B")),
        ("Parameters", MISSING if count is None else f"{count / 1e6:.3g} M" if count < 1e9 else f"{count / 1e9:.3g} B"),
        ("Form", card["form"] or MISSING),
    ]


def of_variant(rows: Sequence[Row]) -> pd.DataFrame:
    """A variant's figures in words, one row a metric; without a value its reason."""
    return pd.DataFrame(
        {
            "suite": [row["suite"] for row in rows],
            "metric": ["all" if row["metric"] == ALL else row["metric"] for row in rows],
            "value": [figure(row, row["unit"] or "1") for row in rows],
            "unit": [row["unit"] or "" for row in rows],
            "better": [row["better"] for row in rows],
            "note": [_note(row) for row in rows],
        },
        dtype="object",
    )
