"""Altair charts in one theme, safe for colour-blind eyes on light and dark ground. Outside text is only ever data."""

# Altair generates its constructors' types and they are narrower than what it takes.
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Iterable, Mapping, Sequence
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
CHAIN = "#8f7a55"
"""Arrows of chains, apart from the three classes by their dashes as well."""
HEIGHT = 420
_SHORT = "replace(datum.label, /confidently | on it/, '')"
"""Of a legend's labels: all three classes have to stand side by side on a telephone."""
_LEGEND = alt.Legend(orient="top", symbolOpacity=1, columns=3, labelExpr=_SHORT)
MANY = 15
"""More points than this, and only those on the front bear their names."""
CROWD = 60
"""More than this, and the intervals of the others are faint."""

APART = (0.13, 0.06)
"""Names cover each other where their points are nearer than these shares of the chart's width and height."""

Chains = Iterable[tuple[str, str]]
"""Parent and child, by label."""

# A tick's label is an expression that Vega evaluates, so a unit enters it only from this list.
_TICKS = {unit: f"format(datum.value, '~s') + '{unit}'" for unit in ("s", "J")}
_STEPS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TICKS["B"] = (
    "".join(f"datum.value >= {size} ? format(datum.value / {size}, '.3~g') + ' {name}' : " for size, name in _STEPS)
    + "format(datum.value, '~g') + ' B'"
)


def pareto(
    front: Front, *, log_x: bool = False, log_y: bool = False, chains: Chains = (), pick: str | None = None
) -> alt.LayerChart:
    """Points with their intervals, those on the front joined; the better ways are told on the axes.

    `chains` are (parent, child) variants, joined by an arrow where both have a point. A third objective is the size of
    the points. `pick` names a selection of one point, for a page that answers to it.
    """
    frame = front.drawn
    frame = _clipped(_clipped(frame, "x", log_x), "y", log_y)
    frame["label"] = [short(name, 40) for name in frame["variant"]]
    # names grow towards the middle, where there is room for them
    middle = np.sqrt(frame["x"].min() * frame["x"].max()) if log_x else (frame["x"].min() + frame["x"].max()) / 2
    frame["side"] = ["right" if value > middle else "left" for value in frame["x"]]
    frame["named"] = named(frame, (log_x, log_y))
    x, y = _axis(front.x, log_x, frame["x"]), _axis(front.y, log_y, frame["y"])
    # one shared table under all layers, so that Streamlit sends it once
    base = alt.Chart(frame)
    across, along = alt.X("x:Q", **x), alt.Y("y:Q", **y)
    line = (
        base.transform_filter(alt.datum.place == ON)
        .mark_line(color=COLOURS[ON], opacity=0.5, strokeWidth=2)
        .encode(x=across, y=along, order=alt.Order("x:Q"))
    )
    points = base.mark_point(filled=True, opacity=1, size=110, cursor="pointer" if pick else "default").encode(
        x=across, y=along, color=_colour(), shape=_shape(), tooltip=_tooltip(front)
    )
    if front.z is not None and frame["z"].notna().any():
        title = f"{short(front.z.name, 40)} [{short(front.z.unit, 10)}]"
        points = points.encode(size=alt.Size("z:Q", title=title, scale=alt.Scale(range=[40, 500]), legend=_LEGEND))
    if pick:
        points = points.add_params(alt.selection_point(name=pick, fields=["variant"], on="click"))
    names = [
        base.transform_filter((alt.datum.side == side) & alt.datum.named)
        .mark_text(align=side, dx=9 if side == "left" else -9, dy=-9, fontSize=13, limit=160)
        .encode(x=across, y=along, text="label:N", color=_colour())
        for side in ("left", "right")
    ]
    arrows = _arrows(frame, chains, (x, y), (log_x, log_y))
    return alt.layer(line, *arrows, *_bars(base, frame, (x, y)), *names, points).properties(height=HEIGHT)


def named(frame: pd.DataFrame, logs: tuple[bool, bool]) -> list[bool]:
    """Which points bear their names: those on the front, and of a few points the others whose name covers no other.

    A point without one tells its name when it is pointed at, and stands in the table.
    """
    x, y = (_shares(frame[axis].to_numpy(), log) for axis, log in zip("xy", logs, strict=True))
    found, taken = [False] * len(frame), list[tuple[float, float]]()
    for place in sorted(range(len(frame)), key=lambda n: (frame["place"][n] != ON, n)):
        on = frame["place"][place] == ON
        free = all(abs(x[place] - a) > APART[0] or abs(y[place] - b) > APART[1] for a, b in taken)
        if on or (free and len(frame) <= MANY):
            found[place] = True
            taken.append((x[place], y[place]))
    return found


def _shares(values: Any, log: bool) -> list[float]:
    """Where values lie on an axis, from 0 to 1."""
    known = np.log(values) if log else values
    span = float(known.max() - known.min())
    return [float(value - known.min()) / span if span > 0 else 0.5 for value in known]


def _bars(base: alt.Chart, frame: pd.DataFrame, axes: tuple[dict[str, Any], dict[str, Any]]) -> list[alt.Chart]:
    """The intervals on either axis, where there are any."""
    (x, y), found = axes, []
    across, along = alt.X("x:Q", **x), alt.Y("y:Q", **y)
    faint = alt.condition(alt.datum.place == ON, alt.value(0.8), alt.value(0.8 if len(frame) <= CROWD else 0.1))
    rule = base.mark_rule().encode(color=_colour(), opacity=faint)
    if frame["x_low"].notna().any():
        found.append(rule.encode(x=alt.X("x_low:Q", **x), x2="x_high:Q", y=along))
    if frame["y_low"].notna().any():
        found.append(rule.encode(x=across, y=alt.Y("y_low:Q", **y), y2="y_high:Q"))
    return found


# Which way a chain's arrow points on the screen, in degrees; a triangle points up. Vega knows the scales.
_TURN = (
    "atan2(scale('y', datum.to_y) - scale('y', datum.from_y), scale('x', datum.to_x) - scale('x', datum.from_x))"
    " * 180 / PI + 90"
)


def _arrows(
    frame: pd.DataFrame, chains: Chains, axes: tuple[dict[str, Any], dict[str, Any]], logs: tuple[bool, bool]
) -> list[alt.Chart]:
    """An arrow from each parent to its child: what the stage bought and cost."""
    place = frame.set_index("variant")[["x", "y"]]
    rows = [(*place.loc[a], *place.loc[b], a, b) for a, b in chains if a in place.index and b in place.index]
    rows = [row for row in rows if row[:2] != row[2:4]]
    if not rows:
        return []
    found = pd.DataFrame(rows, columns=["from_x", "from_y", "to_x", "to_y", "parent", "variant"])
    for axis, log in zip(("x", "y"), logs, strict=True):
        ends = found[f"from_{axis}"], found[f"to_{axis}"]
        found[f"mid_{axis}"] = np.sqrt(ends[0] * ends[1]) if log else (ends[0] + ends[1]) / 2
    base, (x, y) = alt.Chart(found), axes
    told = [alt.Tooltip("parent:N", title="from"), alt.Tooltip("variant:N", title="to")]
    line = base.mark_rule(color=CHAIN, strokeDash=[4, 3], opacity=0.7).encode(
        x=alt.X("from_x:Q", **x), y=alt.Y("from_y:Q", **y), x2="to_x:Q", y2="to_y:Q"
    )
    head = base.mark_point(shape="triangle", filled=True, size=70, color=CHAIN, opacity=1, angle=alt.expr(_TURN))
    return [line, head.encode(x=alt.X("mid_x:Q", **x), y=alt.Y("mid_y:Q", **y), tooltip=told)]


def _colour() -> alt.Color:
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("place:N", title=None, scale=scale, legend=_LEGEND)


def _shape() -> alt.Shape:
    scale = alt.Scale(domain=list(SHAPES), range=list(SHAPES.values()))
    return alt.Shape("place:N", title=None, scale=scale, legend=_LEGEND)


def _tooltip(front: Front) -> list[alt.Tooltip]:
    titles = {"x_text": "across", "y_text": "up", "z_text": "third"}
    third = ("z_text",) if front.z else ()
    fields = ("variant", "x_text", "y_text", *third, "place", "why", "stable")
    return [alt.Tooltip(f"{field}:N", title=titles.get(field, field)) for field in fields]


def _axis(measure: Measure, log: bool, values: pd.Series) -> dict[str, Any]:
    better = {"lower": "less is better", "higher": "more is better"}.get(measure.better, "")
    ticks: dict[str, Any] = {"labelExpr": _TICKS[measure.unit]} if measure.unit in _TICKS else {"format": "~g"}
    if measure.unit == "B" and not log:  # bytes go in binary steps
        ticks |= {"values": binary_ticks(float(values.min()), float(values.max()))}
    return {
        "title": f"{short(measure.name, 60)} [{short(measure.unit, 20)}], {better}",
        "scale": alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=25),
        "axis": alt.Axis(tickCount=6, **ticks),
    }


def binary_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers of KiB, MiB or GiB within about these limits, bytes; at most so many and one more."""
    unit = next((size for size, _ in _STEPS if high >= size), 1)
    span = max((high - low) / unit, abs(high) / unit * 0.02, 1e-9)
    rough = span / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    first, last = np.floor(low / unit / step), np.ceil(high / unit / step)
    return [float(place * step * unit) for place in np.arange(first, last + 1)]


def _clipped(frame: pd.DataFrame, axis: str, log: bool) -> pd.DataFrame:
    """Limits that a logarithmic axis cannot show end at the least value drawn on it."""
    frame = frame.copy()
    if log:
        low = frame[f"{axis}_low"]
        limits = [frame[name][frame[name] > 0].min() for name in (axis, f"{axis}_low")]
        frame[f"{axis}_low"] = low.mask(low <= 0, min(limit for limit in limits if limit == limit))
    return frame


def planted(rows: Sequence[Mapping[str, Any]], unit: str) -> alt.LayerChart:
    """Recovered against planted numbers of one unit, with intervals; on the line they are equal."""
    frame = pd.DataFrame(
        {
            "planted": [row["planted"] for row in rows],
            "recovered": [row["recovered"] for row in rows],
            "low": [row["low"] for row in rows],
            "high": [row["high"] for row in rows],
            "instrument": [f"{row['suite']}: {row['instrument']}, {row['plant']}" for row in rows],
            "verdict": ["recovered" if row["passed"] else "missed" for row in rows],
        }
    ).astype({"low": "float64", "high": "float64"})
    scale = alt.Scale(domain=["recovered", "missed"], range=[COLOURS[ON], COLOURS[BEATEN]])
    colour = alt.Color("verdict:N", title=None, scale=scale, legend=_LEGEND)
    shape = alt.Shape("verdict:N", title=None, scale=alt.Scale(domain=scale["domain"], range=["circle", "diamond"]))
    base = alt.Chart(frame)
    x, y = (
        {"title": f"{name} [{short(unit, 20)}]", "scale": alt.Scale(zero=False, padding=20)}
        for name in ("planted", "recovered")
    )
    ends = [float(min(frame["planted"].min(), frame["recovered"].min())),
            float(max(frame["planted"].max(), frame["recovered"].max()))]  # fmt: skip
    line = alt.Chart(pd.DataFrame({"planted": ends, "recovered": ends})).mark_line(color="#808080", strokeDash=[4, 3])
    told = [
        alt.Tooltip("instrument:N"),
        alt.Tooltip("planted:Q", format=".4g"),
        alt.Tooltip("recovered:Q", format=".4g"),
    ]
    bars = base.mark_rule(opacity=0.7).encode(
        x=alt.X("planted:Q", **x), y=alt.Y("low:Q", **y), y2="high:Q", color=colour
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=alt.X("planted:Q", **x), y=alt.Y("recovered:Q", **y), color=colour, shape=shape, tooltip=told
    )
    return alt.layer(line.encode(x=alt.X("planted:Q", **x), y=alt.Y("recovered:Q", **y)), bars, points).properties(
        height=320
    )
