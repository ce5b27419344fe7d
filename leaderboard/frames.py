"""What the page shows, as rows and data frames: queries in, figures with their texts and reasons out. No Streamlit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from weighin.results.errors import WeighinError
from weighin.results.gate import Rule, Verdict, judge
from weighin.results.render import MISSING, interval, quantity
from weighin.results.store import Store

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

Row = dict[str, Any]

PATIENCE = 5.0
"""Seconds to wait while a run in flight holds the store, which it does for a moment at a time."""
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
"""Which way is better."""
ALL = "*"
"""Stands in the view `scores` for a cell that gave no metric at all."""


@dataclass(frozen=True)
class Measure:
    """A column of the leaderboard: one metric of one suite in one unit."""

    suite: str
    metric: str
    unit: str
    better: str

    @property
    def name(self) -> str:
        """As the command line and the gate write it."""
        return f"{self.suite}.{self.metric}"

    @property
    def header(self) -> str:
        """What stands above its numbers, which are in base units."""
        return f"{self.metric} [{self.unit}] {ARROWS[self.better]}".rstrip()


@dataclass(frozen=True)
class Board:
    """One run as it stood at one moment: rows of `scores`, `variant_cards` and `cells`; cards in the spec's order."""

    run: Row
    scores: list[Row]
    cards: list[Row]
    cells: list[Row]

    @property
    def variants(self) -> list[str]:
        return [card["variant"] for card in self.cards]


def short(text: str, most: int = 80) -> str:
    """Text for a place that must not grow with it; tables hold it whole."""
    return text if len(text) <= most else text[: most - 1] + "…"


def open_store(path: Path) -> Store:
    """The store, for reading."""
    return Store(path, patience=PATIENCE)


def runs(store: Store) -> list[Row]:
    """Every run with its machine, newest first. Raises `WeighinError` where there is none or no store."""
    found = store.rows(
        """select r.run_id, r.spec_name, r.spec, r.status, r.started_at, r.ended_at, r.machine_key,
               m.cpu, m.cores, m.ram_bytes, m.gpu, m.os
           from runs r left join machines m using (machine_key) order by r.started_at desc, r.run_id desc"""
    )
    if not found:
        raise WeighinError(f"{store.path}: holds no run yet; run `weighin run` first")
    return found


def read_board(store: Store, run: Row) -> Board:
    """All that is known of a run, as of one moment."""
    key = [run["run_id"]]
    with store.snapshot() as held:
        return Board(
            run,
            held.rows("select * from scores where run_id = ? order by suite, metric, position", key),
            held.rows("select * from variant_cards where run_id = ? order by position", key),
            held.rows("select label as variant, suite, status from cells where run_id = ? order by suite", key),
        )


def run_title(run: Row) -> str:
    """A run in a list of runs."""
    return f"{run['started_at']:%Y-%m-%d %H:%M} UTC · {short(run['spec_name'])} · {run['run_id']}"


def run_sentence(board: Board) -> str:
    """Which run this is: spec, start, state and machine, in one sentence."""
    run = board.run
    open_cells = sum(cell["status"] in ("planned", "running") for cell in board.cells)
    state = {"running": "in flight or interrupted", "ok": "complete", "failed": "with failed cells"}[run["status"]]
    if open_cells:
        state += f", {len(board.cells) - open_cells} of {len(board.cells)} cells weighed"
    machine = "an unknown machine"
    if run["cpu"] is not None:
        machine = (
            f"{run['cpu']}, {run['cores']} cores, {quantity(run['ram_bytes'], 'B')} memory, {run['gpu'] or 'no GPU'}"
        )
    began = f"{run['started_at']:%Y-%m-%d %H:%M} UTC"
    return (
        f"Run {run['run_id']} of spec {short(run['spec_name'])}, started {began}, {state}, on {machine} ({run['os']})."
    )


def measures(board: Board) -> list[Measure]:
    """Every metric that some variant has, the suite of the headline first."""
    found = {
        Measure(row["suite"], row["metric"], row["unit"] or "1", row["better"])
        for row in board.scores
        if row["metric"] != ALL
    }
    return sorted(found, key=lambda m: (m.suite != "accuracy", m.suite, m.metric, m.unit))


def headlines(known: Sequence[Measure]) -> list[Measure]:
    """The columns to begin with: of each suite, and of each task in it, the first metric that has a better way."""
    chosen: dict[tuple[str, str], Measure] = {}
    for measure in known:
        task = measure.metric.rpartition("/")[0]
        if measure.better != "none":
            chosen.setdefault((measure.suite, task), measure)
    return list(chosen.values()) or list(known[:4])


def axes(board: Board) -> tuple[list[Measure], Measure | None, Measure | None]:
    """What a front can be drawn of, then the usual cost and the usual quality: disk, and the first accuracy.

    Only metrics whose better way is known and one; quality is the first of accuracy, else any where more is better.
    """
    known = [m for m in measures(board) if m.better != "none"]
    directions: dict[str, set[str]] = {}
    for m in known:
        directions.setdefault(m.name, set()).add(m.better)
    known = [m for m in known if len(directions[m.name]) == 1]
    runtime = {(row["suite"], row["metric"]) for row in board.scores if row["runtime"]}
    still = [m for m in known if (m.suite, m.metric) not in runtime]
    quality = next((m for m in [*still, *known] if m.better == "higher"), None)
    costs = [m for m in known if m.better == "lower"]
    cost = next((m for m in costs if m.name == "memory.disk"), next(iter(costs), None))
    return known, cost, quality


def table(board: Board, chosen: Sequence[Measure]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a variant: numbers in base units to sort by, and the same shape in words to show.

    Columns are pairs (suite, header), `identity` last. A word cell holds the value with its interval, n and whatever
    a reader must know of it (modelled, dense kernel), or the status of the cell that gave no number.
    """
    numbers: dict[tuple[str, str], list[Any]] = {}
    words: dict[tuple[str, str], list[str]] = {}
    index = _index(board)
    for measure in chosen:
        rows = [_score(index, variant, measure) for variant in board.variants]
        key = (measure.suite, measure.header)
        numbers[key] = [None if row is None else row["value"] for row in rows]
        words[key] = [_word(row, measure.unit) for row in rows]
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


def styled(numbers: pd.DataFrame, words: pd.DataFrame) -> "Styler":
    """A table that shows the words and sorts by the numbers."""
    shown = numbers.style
    for place, column in enumerate(numbers.columns):
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
        facts["made by"].append(made if card["variant_key"] else "a stage failed")
    return facts


def _index(board: Board) -> dict[tuple[str, str, str], Row]:
    return {(row["variant"], row["suite"], row["metric"]): row for row in board.scores}


def _score(index: dict[tuple[str, str, str], Row], variant: str, measure: Measure) -> Row | None:
    """The score of a variant in a column, or the row that says why its cell gave none."""
    row = index.get((variant, measure.suite, measure.metric))
    if row is not None and (row["unit"] or "1") == measure.unit:
        return row
    return index.get((variant, measure.suite, ALL))


def _word(row: Row | None, unit: str) -> str:
    if row is None:
        return MISSING
    if row["value"] is None:
        return str(row["status"])
    marks = [interval(row["value"], row["ci_low"], row["ci_high"], unit), *remarks(row), f"n {row['n']}"]
    return " · ".join(marks)


def remarks(row: Row) -> list[str]:
    """How a figure came about where it was not simply measured, in a word each."""
    found = [] if row["source"] in ("measured", None) else [str(row["source"])]
    if str(row["eligible_reason"] or "").startswith("dense kernel"):
        found.append("dense kernel")
    return found


def absences(board: Board) -> pd.DataFrame:
    """What has no number, and why: one row a cell or metric, in the spec's order."""
    index = _index(board)
    known = measures(board)
    found = []
    for cell in sorted(board.cells, key=lambda cell: (cell["suite"], _place(board, cell["variant"]))):
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


def _place(board: Board, variant: str) -> int:
    return board.variants.index(variant) if variant in board.variants else len(board.cards)


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


def verdicts(store: Store, run: Row) -> list[Verdict]:
    """What the gate rules of the run's own spec come to on it; none where it has no rules. Raises `WeighinError`."""
    rules = run["spec"].get("gate") or [] if isinstance(run["spec"], dict) else []
    try:
        wanted = [Rule(**rule) for rule in rules]
    except (TypeError, AttributeError) as error:
        raise WeighinError("the spec of this run has gate rules that this Weighin cannot read") from error
    return judge(store, wanted, run["run_id"])
