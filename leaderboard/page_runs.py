"""Runs: how far a run in flight is, which cells failed or abstained with reasons and logs, and what it cost."""

import streamlit as st

from weighin.leaderboard import cells, frames, page
from weighin.leaderboard.frames import Row, open_store
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place


@page.kept
def read_listed(path: Place, seen: Stamp) -> list[Row]:
    """The runs with the state of their cells."""
    return cells.runs(open_store(path))


def draw(here: Here) -> None:
    """The page from top to bottom."""
    board = here.board
    st.text(frames.run_sentence(board))
    share, told = cells.progress(board)
    st.progress(share)
    st.text(told)
    found = cells.wanting(board)
    if len(found):
        st.subheader("Cells without a figure")
        event = st.dataframe(
            found, hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row", key="cells",
            column_config={"reason": st.column_config.Column(width="large")},
            height="content" if len(found) < 9 else 330, alt="Cells without a figure, failed ones first",
        )  # fmt: skip
        st.caption("Tick a row to read the end of its log.")
        for row in event.selection.rows[:1]:
            _log(found["log"].iloc[row] if row < len(found) else "")
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("What it cost")
        cost = cells.cost(board)
        if len(cost):
            page.text_table(cost, "Seconds by suite")
        else:
            st.text("Nothing: the store already held every figure of this run.")
    with right:
        st.subheader("Every run")
        page.text_table(cells.listed(read_listed(here.path, here.seen)), "Every run, the newest first")


def _log(path: str) -> None:
    text = cells.tail(path)
    if text is None:
        st.text("Its log is not among the logs of this machine (WEIGHIN_HOME).")
    else:
        st.code(text or "The log is empty.", language=None)


page.show("Runs", draw)
