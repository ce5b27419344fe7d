"""Nightly: a metric night by night with what changed, alarms with their named causes, the machine's fingerprint."""

import pandas as pd
import streamlit as st

from weighin.leaderboard import history, page
from weighin.leaderboard.frames import open_store
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place
from weighin.results.errors import WeighinError
from weighin.results.history import Series
from weighin.results.history import history as read_history
from weighin.results.lookup import quality
from weighin.results.since import Alarm, Night, alarms, timeline


@page.kept
def read_series(path: Place, seen: Stamp, metric: str, variant: str, run: str) -> list[Series]:
    """The series; none where every run of this spec took it from another's."""
    try:
        return read_history(open_store(path), metric, variant=variant, run=run)
    except WeighinError:
        return []


@page.kept
def read_alarms(path: Place, seen: Stamp, spec: str) -> list[Alarm]:
    """What failed, newest first."""
    return alarms(open_store(path), spec)


@page.kept
def read_timeline(path: Place, seen: Stamp, spec: str, machine: str) -> list[Night]:
    """What the machine and the software were."""
    return timeline(open_store(path), spec, machine)


def draw(here: Here) -> None:
    """The page from top to bottom."""
    _alarms(here)
    st.subheader("A metric, night by night")
    known = here.board.measures
    left, right = st.columns(2)
    best = quality(here.board.scores)
    metric = page.measure(left, "Metric", known, "metric", next((m for m in known if m.name == best), None))
    variant = page.pick(right, "Variant", here.board.variants, "variant")
    found = read_series(here.path, here.seen, metric.name, variant, here.run) if metric else []
    if found:
        series = next((each for each in found if each.name == metric.name), found[0]) if metric else found[0]
        if len(series.nights) >= history.FEWEST:
            st.altair_chart(history.chart(series), width="stretch", alt=history.in_words(series))
        st.text(history.in_words(series))
        page.text_table(history.table(series), "The series as a table")
        page.downloads(history.frame(series), "nights")
    else:
        st.text("No run of this spec has measured it.")
    _timeline(here)


def _alarms(here: Here) -> None:
    st.subheader("Alarms")
    found = read_alarms(here.path, here.seen, here.board.run["spec_name"])
    if not found:
        st.text("No judged run of this spec has raised an alarm.")
        return
    rows = [
        (f"{each.at:%Y-%m-%d %H:%M}", each.variant, each.metric, each.why, "; ".join(each.causes) or "none named")
        for each in found
    ]
    frame = pd.DataFrame(rows, columns=["night (UTC)", "variant", "metric", "why", "what had changed"], dtype="object")
    page.text_table(frame, "Alarms, the newest first")


def _timeline(here: Here) -> None:
    st.subheader("The machine and its software")
    run = here.board.run
    found = read_timeline(here.path, here.seen, run["spec_name"], run["machine_key"])
    marked = [each for each in found if each.changes]
    st.text(
        f"{len(found)} runs of this spec on this class of machine, {len(marked)} with a changed fingerprint."
        if len(found) > 1 else "One run of this spec on this class of machine so far."
    )  # fmt: skip
    if marked:
        rows = [(f"{each.at:%Y-%m-%d %H:%M}", each.run, "; ".join(map(str, each.changes))) for each in marked]
        frame = pd.DataFrame(rows, columns=["night (UTC)", "run", "what"], dtype="object")
        page.text_table(frame, "Where the fingerprint changed, the newest first")


page.show("Nightly", draw)
