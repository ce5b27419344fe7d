"""The verb `history`: a metric's series with change marks, as text. Plain ASCII in a pipe."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from weighin.harness import report
from weighin.results.history import Night, Series, history
from weighin.results.render import interval, quantity
from weighin.results.store import Store

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"
WIDTH = 60
"""Nights that the chart draws: the newest ones."""
MOST = 4
"""Fields that a change mark names."""


def show_history(args: argparse.Namespace) -> int:
    """Print the series of a metric, one a variant."""
    console = Console()
    for each in history(Store(args.store), args.metric, spec=args.spec, variant=args.variant):
        _print(console, each)
    return 0


def _print(console: Console, series: Series) -> None:
    nights, better = series.nights, {"none": "neither way is better"}.get(series.better, f"{series.better} is better")
    count = f"{len(nights)} night" + ("s" if len(nights) > 1 else "")
    console.print(f"\n[bold]{escape(series.name)}[/] · {escape(series.variant)}", highlight=False)
    console.print(f"  spec {escape(series.spec)}, {count}, {better}", highlight=False)
    shown = nights[-WIDTH:]
    values = [night.value for night in shown]
    low, high = (quantity(value, series.unit) for value in (min(values), max(values)))
    console.print(f"  {sparkline(values, BLOCKS if console.is_terminal else ASCII)}  {low} to {high}", highlight=False)
    marks = "".join("!" if night.alarm else "|" if night.changes else " " for night in shown).rstrip()
    if marks:
        console.print(f"  {marks}  | changed, ! alarm", highlight=False, markup=False)
    made = report.table("night (UTC)", "value", "marks")
    for night in nights:
        value = interval(night.value, night.low, night.high, series.unit)
        made.add_row(f"{night.at:%Y-%m-%d %H:%M}", escape(value), escape("\n".join(told(night))))
    console.print(made)


def sparkline(values: Sequence[float], levels: str) -> str:
    """A character a value, the lowest `levels[0]` and the highest `levels[-1]`; a flat line is in the middle."""
    low, span = min(values), max(values) - min(values)
    if not span:
        return levels[len(levels) // 2] * len(values)
    return "".join(levels[min(int((value - low) / span * len(levels)), len(levels) - 1)] for value in values)


def told(night: Night) -> list[str]:
    """A night's marks in words, the alarm first."""
    marks = [f"! {night.alarm}"] if night.alarm else []
    if night.accepted:
        marks.append("accepted: the series begins anew")
    marks += [f"| {change}" for change in night.changes[:MOST]]
    more = len(night.changes) - MOST
    return [*marks, f"| and {more} more"] if more > 0 else marks
