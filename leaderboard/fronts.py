"""A Pareto front as the page shows it: one table that the chart and its text alternative are both made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from weighin.leaderboard.frames import Board, Measure, short
from weighin.leaderboard.tables import figure
from weighin.results.front import PLACES
from weighin.results.front import Front as Found
from weighin.results.front import in_words as said_of
from weighin.results.render import MISSING

ON, POSSIBLY, BEATEN, OUT = PLACES.values()
TOLD = 20
"""Variants of a place that are told in words; the table has them all."""
COLUMNS = (
    "variant",
    "place",
    "why",
    "stable",
    "x_text",
    "y_text",
    "z_text",
    "x",
    "x_low",
    "x_high",
    "y",
    "y_low",
    "y_high",
    "z",
)


@dataclass(frozen=True)
class Front:
    """Every variant with its place; `frame` has the columns `COLUMNS`, numbers in base units.

    `said` holds sentences on the whole: hypervolume, knee, what an axis could not tell.
    """

    x: Measure
    y: Measure
    frame: pd.DataFrame
    said: tuple[str, ...] = ()
    z: Measure | None = None

    @property
    def drawn(self) -> pd.DataFrame:
        """The rows that have a point."""
        return self.frame[self.frame["place"] != OUT].reset_index(drop=True)


def build(board: Board, found: Found, x: Measure, y: Measure, z: Measure | None = None) -> Front:
    """Join places with values, intervals and n; a third objective has no limits of its own on the chart."""
    index = board.index
    records = []
    for row in found.rows:
        sides = [index.get((row.variant, m.suite, m.metric)) if m else None for m in (x, y, z)]
        texts = [figure(side, m.unit) if m else "" for side, m in zip(sides, (x, y, z), strict=True)]
        numbers = [side[name] if side else None for side in sides for name in ("value", "ci_low", "ci_high")][:7]
        stable = MISSING if row.stability is None else f"{row.stability * 100:.0f} %"
        records.append((row.variant, PLACES[row.place], row.why, stable, *texts, *numbers))
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    return Front(x, y, frame.astype(dict.fromkeys(COLUMNS[7:], "float64")), tuple(said_of(found)), z)


def chains(board: Board, parents: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """(parent, child) labels of the run, each child with the nearest of its ancestors that has a label.

    `parents` is the parent's key by key, of every checkpoint of the store.
    """
    labels = {card["variant_key"]: card["variant"] for card in reversed(board.cards) if card["variant_key"]}
    found = []
    for card in board.cards:
        at = parents.get(card["variant_key"])
        while at is not None and at not in labels:
            at = parents.get(at)
        if at is not None:
            found.append((labels[at], card["variant"]))
    return found


def in_words(front: Front) -> str:
    """The chart for whoever cannot see it."""
    frame = front.frame
    on = [short(name) for name in frame.loc[frame["place"] == ON, "variant"]]
    third = f" and {front.z.name}" if front.z else ""
    said = f"On the front of {front.y.name} against {front.x.name}{third}: {', '.join(on) or 'no variant'}."
    for place in (POSSIBLY, BEATEN, OUT):
        rows = frame[frame["place"] == place]
        if len(rows):
            told = rows.head(TOLD)
            named = [
                f"{short(name)} ({short(why, 200)})" for name, why in zip(told["variant"], told["why"], strict=True)
            ]
            more = f"; and {len(rows) - TOLD} more, in the table" if len(rows) > TOLD else ""
            said += f"\n{place.capitalize()}: {'; '.join(named)}{more}."
    return "\n".join([said, *(short(line, 300) for line in front.said)])


def listed(front: Front) -> pd.DataFrame:
    """The same rows as a table."""
    third = {"z_text": front.z.name} if front.z else {}
    shown = front.frame[["variant", "place", "stable", "y_text", "x_text", *third, "why"]]
    return shown.rename(columns={"x_text": front.x.name, "y_text": front.y.name, **third})


def positive(frame: pd.DataFrame, axis: str) -> bool:
    """Whether a logarithmic axis can show every value."""
    return len(frame) > 0 and bool((frame[axis] > 0).all())


def wide(frame: pd.DataFrame, axis: str) -> bool:
    """Whether the values span so much that a logarithmic axis reads better."""
    return positive(frame, axis) and bool(frame[axis].max() >= 20 * frame[axis].min())
