"""Pareto: who is on the front of two or three objectives, who may be, who is not, and what a stage bought."""

from typing import Any

import streamlit as st

from weighin.leaderboard import charts, frames, fronts, page
from weighin.leaderboard.answers import Refused, read_chains, read_front
from weighin.leaderboard.frames import Measure
from weighin.leaderboard.page import Here


def draw(here: Here) -> None:
    """The page from top to bottom."""
    known, cost, quality = frames.axes(here.board)
    if cost is None or quality is None:
        st.text("A front needs a metric where less is better and one where more is: this run has no such pair.")
        return
    across, up, third = st.columns(3)
    x = page.measure(across, "Across", known, "x", cost)
    y = page.measure(up, "Up", known, "y", quality)
    names = {m.name: m for m in known}
    z = names.get(page.pick(third, "Third objective", ["", *names], "z", named=lambda name: name or "None"))
    assert x is not None and y is not None, "there are metrics to choose from"
    chosen = [m.name for m in (x, y, z) if m is not None]
    if len(set(chosen)) < len(chosen):
        st.text("A front needs different metrics: choose another for one of the axes.")
        return
    answer = read_front(here.path, here.seen, tuple(chosen), here.run)
    if isinstance(answer, Refused):
        st.text(answer.why)
        return
    found = fronts.build(here.board, answer, x, y, z)
    _chart(here, found, (across, up, third))
    st.text(fronts.in_words(found))
    page.text_table(fronts.listed(found), "Every variant with its place")
    page.downloads(found.frame, "pareto")
    st.caption(
        f"Only figures of one machine enter: that of the run, {len(found.drawn)} of {len(found.frame)} variants. On "
        "the front: nobody beats its figures. Possibly: somebody does, but no paired test shows it. Confidently "
        "dominated: a test does, in every objective. Stable: the share of bootstrap draws in which a variant is on "
        "the front, no probability. A dashed arrow leads from a parent to what a stage made of it. `weighin front` "
        "takes more objectives, tolerances and a reference point."
    )


def _chart(here: Here, found: fronts.Front, places: Any) -> None:
    """The picture; a click on a point opens its variant."""
    logs = [_logarithmic(place, found, axis) for place, axis in zip(places[:2], "xy", strict=True)]
    arrows = page.switch(places[2], "Chains", "chains", default=len(found.frame) <= charts.MANY)
    if not len(found.drawn):
        return
    chains = read_chains(here.path, here.seen, here.run) if arrows else ()
    drawn = charts.pareto(found, log_x=logs[0], log_y=logs[1], chains=chains, pick="chosen")
    # the key changes with the picture, so that an old click is not taken for a new one
    key = f"front {here.run} {found.x.name} {found.y.name} {found.z.name if found.z else ''}"
    event = st.altair_chart(
        drawn, width="stretch", on_select="rerun", key=key, alt=fronts.in_words(found).splitlines()[0]
    )
    points = event.selection.get("chosen") or []  # Streamlit gives an empty dict where nothing was clicked
    if points:
        page.go("variant", variant=str(points[0]["variant"]))
    st.caption("A click on a point opens its variant.")


def _logarithmic(place: Any, found: fronts.Front, axis: str) -> bool:
    """A switch for a logarithmic axis, there where every value is above zero."""
    measure: Measure = found.x if axis == "x" else found.y
    can = fronts.positive(found.drawn, axis)
    return page.switch(
        place, "Logarithmic", f"log {axis} {measure.name}", default=can and fronts.wide(found.drawn, axis),
        disabled=not can,
    )  # fmt: skip


page.show("Pareto front", draw)
