"""A metric over the nights: the series that the page draws, with marks where something changed or an alarm rang."""

# Altair generates its constructors' types and they are narrower than what it takes.
# pyright: reportArgumentType=false, reportReturnType=false

import altair as alt
import pandas as pd

from weighin.leaderboard.charts import COLOURS
from weighin.leaderboard.frames import short
from weighin.leaderboard.fronts import BEATEN, ON
from weighin.results.history import Night, Series
from weighin.results.render import interval

FEWEST = 3
"""Nights that a line needs; fewer are told in words."""
PLAIN, CHANGED, ALARM = "as before", "something changed", "alarm"
MARKS = {PLAIN: COLOURS[ON], CHANGED: "#8a8a8a", ALARM: COLOURS[BEATEN]}
SHAPES = {PLAIN: "circle", CHANGED: "square", ALARM: "diamond"}


def frame(series: Series) -> pd.DataFrame:
    """A row a night: run, time, value with limits in the base unit, n, its mark, and what changed in words."""
    rows = [
        (
            night.run, night.at, night.value, night.low, night.high, series.unit, night.n,
            ALARM if night.alarm else CHANGED if night.changes else PLAIN,
            "; ".join([*([night.alarm] if night.alarm else []), *map(str, night.changes)]),
        )
        for night in series.nights
    ]  # fmt: skip
    made = pd.DataFrame(rows, columns=["run", "night", "value", "low", "high", "unit", "n", "mark", "what"])
    return made.astype({"value": "float64", "low": "float64", "high": "float64"})


def table(series: Series) -> pd.DataFrame:
    """The same in words, the newest night first."""
    nights, rows = series.nights[::-1], frame(series).iloc[::-1]
    return pd.DataFrame(
        {
            "night (UTC)": [f"{night.at:%Y-%m-%d %H:%M}" for night in nights],
            "run": [night.run for night in nights],
            "value": [_figure(night, series.unit) for night in nights],
            "mark": list(rows["mark"]),
            "what": list(rows["what"]),
        },
        dtype="object",
    )


def _figure(night: Night, unit: str) -> str:
    without = " · no interval" if night.low is None else ""
    return f"{interval(night.value, night.low, night.high, unit)}{without} · n {night.n}"


def chart(series: Series) -> alt.LayerChart:
    """The series as a line with a point a night and its interval; marks differ in colour and shape."""
    base = alt.Chart(frame(series))
    across = alt.X("night:T", title="night")
    title = f"{short(series.name, 60)} [{short(series.unit, 20)}]"
    up = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g"))
    colour = alt.Color("mark:N", title=None, scale=alt.Scale(domain=list(MARKS), range=list(MARKS.values())))
    shape = alt.Shape("mark:N", title=None, scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())))
    line = base.mark_line(color=COLOURS[ON], opacity=0.5).encode(x=across, y=up)
    limits = base.mark_rule(color=COLOURS[ON], opacity=0.4).encode(x=across, y=alt.Y("low:Q", title=title), y2="high:Q")
    told = [alt.Tooltip(f"{name}:N", title=name) for name in ("run", "mark", "what")]
    points = base.mark_point(size=80, filled=True, opacity=1).encode(
        x=across, y=up, color=colour, shape=shape, tooltip=[*told, alt.Tooltip("value:Q", format=".4g")]
    )
    return alt.layer(line, limits, points).properties(height=260)


def in_words(series: Series) -> str:
    """The chart for whoever cannot see it."""
    marks = [night for night in series.nights if night.alarm or night.changes]
    alarms = sum(night.alarm is not None for night in marks)
    count = len(series.nights)
    return (
        f"{short(series.name)} of {short(series.variant)}: {count} night{'s' * (count > 1)}, "
        f"{len(marks) - alarms} with a change, {alarms} with an alarm."
    )
