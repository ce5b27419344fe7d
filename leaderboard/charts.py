"""Altair charts in one theme, safe for colour-blind eyes on light and dark ground. Outside text is only ever data."""

# Altair generates its constructors' types and they are narrower than what it takes.
# pyright: reportArgumentType=false, reportReturnType=false

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from weighin.leaderboard.frames import Measure, short
from weighin.leaderboard.fronts import BEATEN, ON, POSSIBLY, Front

# Blue and vermilion after Okabe and Ito (2008), the blue a shade lighter, and grey for what is undecided: all keep a
# contrast above 3 to white and to Streamlit's dark ground. Shape tells the classes apart once more.
COLOURS = {ON: "#1f83c9", POSSIBLY: "#808080", BEATEN: "#d55e00"}
SHAPES = {ON: "circle", POSSIBLY: "triangle-up", BEATEN: "diamond"}
HEIGHT = 420
MANY = 15
"""More points than this, and only those on the front bear their names."""

# A tick's label is an expression that Vega evaluates, so a unit enters it only from this list.
_TICKS = {unit: f"format(datum.value, '~s') + '{unit}'" for unit in ("s", "B", "J")}


def pareto(front: Front, *, log_x: bool = False, log_y: bool = False) -> alt.LayerChart:
    """Points with their intervals, those on the front joined; the better ways are told on the axes."""
    frame = front.drawn
    frame = _clipped(_clipped(frame, "x", log_x), "y", log_y)
    frame["label"] = [short(name, 40) for name in frame["variant"]]
    # names grow towards the middle, where there is room for them
    middle = np.sqrt(frame["x"].min() * frame["x"].max()) if log_x else (frame["x"].min() + frame["x"].max()) / 2
    frame["side"] = ["right" if value > middle else "left" for value in frame["x"]]
    x, y = _axis(front.x, log_x), _axis(front.y, log_y)
    # one shared table under all layers, so that Streamlit sends it once
    base = alt.Chart(frame)
    colour = alt.Color(
        "place:N",
        title=None,
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=alt.Legend(orient="top", symbolOpacity=1),
    )
    across, along = alt.X("x:Q", **x), alt.Y("y:Q", **y)
    line = (
        base.transform_filter(alt.datum.place == ON)
        .mark_line(color=COLOURS[ON], opacity=0.5, strokeWidth=2)
        .encode(x=across, y=along, order=alt.Order("x:Q"))
    )
    bars = []
    if frame["x_low"].notna().any():
        bars.append(base.mark_rule(opacity=0.8).encode(x=alt.X("x_low:Q", **x), x2="x_high:Q", y=along, color=colour))
    if frame["y_low"].notna().any():
        bars.append(base.mark_rule(opacity=0.8).encode(x=across, y=alt.Y("y_low:Q", **y), y2="y_high:Q", color=colour))
    points = base.mark_point(size=110, filled=True, opacity=1).encode(
        x=across, y=along, color=colour, shape=_shape(), tooltip=_tooltip()
    )
    named = base if len(frame) <= MANY else base.transform_filter(alt.datum.place == ON)
    names = [
        named.transform_filter(alt.datum.side == side)
        .mark_text(align=side, dx=9 if side == "left" else -9, dy=-9, fontSize=13, limit=160)
        .encode(x=across, y=along, text="label:N", color=colour, tooltip=_tooltip())
        for side in ("left", "right")
    ]
    return alt.layer(line, *bars, points, *names).properties(height=HEIGHT)


def _shape() -> alt.Shape:
    scale = alt.Scale(domain=list(SHAPES), range=list(SHAPES.values()))
    return alt.Shape("place:N", title=None, scale=scale, legend=alt.Legend(orient="top"))


def _tooltip() -> list[alt.Tooltip]:
    titles = {"x_text": "across", "y_text": "up"}
    fields = ("variant", "x_text", "y_text", "place", "why", "stable")
    return [alt.Tooltip(f"{field}:N", title=titles.get(field, field)) for field in fields]


def _axis(measure: Measure, log: bool) -> dict[str, Any]:
    better = {"lower": "less is better", "higher": "more is better"}.get(measure.better, "")
    ticks = {"labelExpr": _TICKS[measure.unit]} if measure.unit in _TICKS else {"format": "~g"}
    return {
        "title": f"{short(measure.name, 60)} [{short(measure.unit, 20)}], {better}",
        "scale": alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=25),
        "axis": alt.Axis(tickCount=6, **ticks),
    }


def _clipped(frame: pd.DataFrame, axis: str, log: bool) -> pd.DataFrame:
    """Limits that a logarithmic axis cannot show end at the least value drawn on it."""
    frame = frame.copy()
    if log:
        low = frame[f"{axis}_low"]
        limits = [frame[name][frame[name] > 0].min() for name in (axis, f"{axis}_low")]
        frame[f"{axis}_low"] = low.mask(low <= 0, min(limit for limit in limits if limit == limit))
    return frame
