"""Intervals as small bars: one picture a cell, all of a column on one scale. SVG as data, nothing is fetched."""

import math
from base64 import b64encode
from collections.abc import Sequence

WIDTH, HEIGHT, EDGE = 130, 22, 6
COLOUR = "#1f83c9"
"""As on the charts; it keeps a contrast above 3 to white and to Streamlit's dark ground."""

Limits = tuple[float | None, float | None, float | None]
"""A value with its lower and upper limit."""


def scale(rows: Sequence[Limits]) -> tuple[float, float] | None:
    """The least and greatest of all values and limits; None where there is no value."""
    known = [each for row in rows for each in row if each is not None and math.isfinite(each)]
    return (min(known), max(known)) if known else None


def svg(row: Limits, over: tuple[float, float] | None) -> str:
    """A dot at the value and a line between its limits; empty without a value."""
    value, low, high = row
    if over is None or value is None or not math.isfinite(value):
        return ""
    dot, middle = _place(value, over), HEIGHT / 2
    line = ""
    if low is not None and high is not None:
        start, end = _place(low, over), _place(high, over)
        line = f'<path d="M{start:.1f} {middle}H{end:.1f}" stroke="{COLOUR}" stroke-width="5" stroke-opacity=".45"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'{line}<circle cx="{dot:.1f}" cy="{middle}" r="4" fill="{COLOUR}"/></svg>'
    )


def address(row: Limits, over: tuple[float, float] | None) -> str:
    """The picture as a data address; empty without a value."""
    drawn = svg(row, over)
    return f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}" if drawn else ""


def _place(value: float, over: tuple[float, float]) -> float:
    low, high = over
    share = (value - low) / (high - low) if high > low else 0.5
    return EDGE + share * (WIDTH - 2 * EDGE)
