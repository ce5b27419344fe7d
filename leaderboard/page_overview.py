"""Overview: what is on the scales, what the gate says, the front in one picture, what changed since the last green."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from weighin.leaderboard import charts, frames, fronts, gating, page
from weighin.leaderboard.answers import Refused, read_chains, read_front, read_instruments, read_verdicts
from weighin.leaderboard.frames import open_store
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place
from weighin.results.gate import exit_code, sentence
from weighin.results.since import Since, since_green

TILE = 150  # pixels: two stand side by side on a telephone
BOXES: dict[int, Callable[..., Any]] = {0: st.success, 1: st.error, 3: st.warning}


@page.kept
def read_since(path: Place, seen: Stamp, run: str) -> Since:
    """What changed since the last green run."""
    return since_green(open_store(path), run)


def draw(here: Here) -> None:
    """The page from top to bottom."""
    st.text(frames.run_sentence(here.board))
    judged = read_verdicts(here.path, here.seen, here.run)
    if isinstance(judged, list) and judged:
        BOXES[exit_code(judged)](sentence(judged))
        errors = read_instruments(here.path, here.seen, here.run)[2]
        st.text(errors[:1].upper() + errors[1:])
    _tiles(here)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _front(here)
    with right:
        _since(here)
    st.subheader("Gate")
    if isinstance(judged, Refused):
        st.warning("The gate rules of this run could not be judged.")
        st.text(judged.why)
    elif judged:
        page.text_table(gating.table(judged), "Each rule of the gate with its verdict")
    else:
        st.text(sentence(judged))


def _tiles(here: Here) -> None:
    """The run at a glance."""
    board = here.board
    count = {name: sum(cell["status"] == name for cell in board.cells) for name in ("ok", "abstained", "failed")}
    still = len(board.cells) - sum(count.values())
    told = [
        ("Variants", str(len(board.cards))),
        ("Cells measured", f"{count['ok']} of {len(board.cells)}"),
        ("Abstained", str(count["abstained"])),
        ("Failed", str(count["failed"])) if not still else ("Open", str(still)),
    ]
    with st.container(horizontal=True):  # wraps on a telephone, where columns would be stacked
        for label, value in told:
            st.metric(label, value, border=True, width=TILE)


def _front(here: Here) -> None:
    st.subheader("The front in one picture")
    _, cost, quality = frames.axes(here.board)
    if cost is None or quality is None:
        st.text("A front needs a metric where less is better and one where more is: this run has no such pair.")
        return
    answer = read_front(here.path, here.seen, (cost.name, quality.name), here.run)
    if isinstance(answer, Refused):
        st.text(answer.why)
        return
    found = fronts.build(here.board, answer, cost, quality)
    if len(found.drawn):
        chains = read_chains(here.path, here.seen, here.run) if len(found.frame) <= charts.MANY else ()
        drawn = charts.pareto(found, log_x=fronts.wide(found.drawn, "x"), chains=chains)
        st.altair_chart(drawn, width="stretch", alt=fronts.in_words(found).splitlines()[0])
    with st.expander("The same in words and as a table"):
        st.text(fronts.in_words(found))
        page.text_table(fronts.listed(found), "Every variant with its place")


def _since(here: Here) -> None:
    st.subheader("Since the last green run")
    found = read_since(here.path, here.seen, here.run)
    if found.green is None:
        st.text(f"There is nothing to hold it against: {found.why}.")
        return
    st.text(f"Held against run {found.green}.")
    rows = [(change.field, change.old, change.new) for change in found.changes]
    rows += [("variant", "", label) for label in found.labels]
    if not rows:
        st.text("Nothing that the fingerprint covers has changed: code, packages, driver, machine, weights.")
        return
    page.text_table(pd.DataFrame(rows, columns=["field", "then", "now"], dtype="object"), "What changed")


page.show("Overview", draw)
