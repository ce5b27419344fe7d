"""`weighin front`: the Pareto front of a run as text or JSON."""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from weighin.harness.report import ARROWS
from weighin.results.errors import WeighinError
from weighin.results.front import PLACES, Front, FrontRow, View, in_words
from weighin.results.front import front as find
from weighin.results.objectives import Axis
from weighin.results.render import interval, quantity
from weighin.results.store import Store

MOST_DRAWS = 10_000
LEGEND = (
    "On the front: nobody beats its figures. Possibly: somebody does, but no paired test shows it. Dominated: a test "
    "does (5 %), in every objective. Stable: the share of bootstrap draws in which it is on the front, no probability."
)


def front(args: argparse.Namespace) -> int:
    """Find the front that the arguments ask for and print it."""
    console = Console()
    if not 2 <= args.draws <= MOST_DRAWS:
        raise WeighinError(f"--draws: should be between 2 and {MOST_DRAWS} (got {args.draws})")
    if args.seed < 0:
        raise WeighinError(f"--seed: should be 0 or more (got {args.seed})")
    view = View(
        epsilon=by_metric("--epsilon", args.epsilon, least=0.0),
        reference=by_metric("--reference", args.reference),
        against=args.against,
        waive=args.waive,
        draws=args.draws,
        seed=args.seed,
    )
    found = find(Store(args.store), (args.x, args.y, *args.z), args.run, view)
    if args.json:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False))
    else:
        show(console, found)
    return 0


def by_metric(option: str, given: Sequence[str], least: float = -math.inf) -> dict[str, float]:
    """`METRIC=VALUE` texts, several in one between commas, as a mapping. Raises `WeighinError`."""
    found: dict[str, float] = {}
    for text in (part for each in given for part in each.split(",")):
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (name and equals and math.isfinite(number) and number >= least):
            allowed = "a number" if math.isinf(least) else f"a number >= {least:g}"
            message = f"should read METRIC=VALUE, as in accuracy.acc=0.01, with {allowed}"
            raise WeighinError(f"{option}: {message} (got {text!r})")
        if name.strip() in found:
            raise WeighinError(f"{option}: {name.strip()} is given twice")
        found[name.strip()] = number
    return found


def as_json(found: Front) -> dict[str, Any]:
    """The front in plain types, figures in base units."""
    axes = [asdict(axis) | {"name": axis.name} for axis in found.axes]
    rows = [asdict(row) for row in found.rows]
    whole = {"run": found.run, "axes": axes, "variants": rows, "hypervolume": asdict(found.volume)}
    return whole | {"knee": found.knee, "notes": list(found.notes)}


def show(console: Console, found: Front) -> None:
    """A table with the classes one below the other, then hypervolume, knee and what the axes could not tell."""
    console.print(f"[bold]Pareto front[/] of run {escape(found.run)}", highlight=False)
    letters = [*"xyzw", *(f"x{place}" for place in range(5, len(found.axes) + 1))][: len(found.axes)]
    for letter, axis in zip(letters, found.axes, strict=True):
        console.print(f"  [bold]{letter}[/]  {escape(_axis(axis))}", highlight=False)
    for line in _lines(found, letters, console.width):
        console.print(line, highlight=False)
    console.print()
    for line in in_words(found):
        console.print(escape(line), highlight=False)
    console.print(f"[dim]{LEGEND}[/]")


def _axis(axis: Axis) -> str:
    if not axis.epsilon:
        return f"{axis.name} {ARROWS[axis.better]}"
    if axis.reduce == "exp_mean":
        tolerance = f"{axis.epsilon * 100:g} %"
    else:
        tolerance = f"{axis.epsilon:g}" if axis.unit == "1" else quantity(axis.epsilon, axis.unit)
    return f"{axis.name} {ARROWS[axis.better]}, equal within {tolerance}"


def _lines(found: Front, letters: Sequence[str], width: int) -> Iterator[str]:
    """The classes one below the other, in columns; what is to be said of a row follows it, or stands below it."""
    inside = [row for row in found.rows if row.place != "out"]
    cells = {row.variant: _cells(row, found.axes) for row in inside}
    sizes = [max(map(len, column)) for column in zip(("", *letters, "stable"), *cells.values(), strict=True)]
    heads = "  ".join(text.ljust(size) for text, size in zip(("", *letters, "stable"), sizes, strict=True))
    yield f"\n  [bold]{escape(heads)}[/]" if inside else ""
    for place, name in PLACES.items():
        rows = found.those(place)
        if rows:
            yield f"[cyan]{name}[/]"
        for row in rows:
            if place == "out":
                yield escape(f"  {row.variant}: {row.why}")
                continue
            line = "  ".join(text.ljust(size) for text, size in zip(cells[row.variant], sizes, strict=True))
            fits = len(line) + len(row.why) + 4 <= width
            yield escape(f"  {line}  {row.why}".rstrip() if fits else f"  {line}".rstrip() + f"\n      {row.why}")


def _cells(row: FrontRow, axes: Sequence[Axis]) -> list[str]:
    """The row's texts; intervals where two objectives leave the room."""
    values = []
    for axis, value, limits in zip(axes, row.values, row.limits, strict=True):
        low, high = limits if limits and len(axes) == 2 else (None, None)
        values.append(interval(value, low, high, axis.unit))
    return [row.variant, *values, f"{(row.stability or 0.0) * 100:.0f} %"]
