"""Instruments: what `weighin calibrate` found on the run's machine, planted against recovered."""

import streamlit as st

from weighin.leaderboard import charts, page, tables
from weighin.leaderboard.answers import read_instruments
from weighin.leaderboard.page import Here


def draw(here: Here) -> None:
    """The page from top to bottom."""
    suites, found, errors = read_instruments(here.path, here.seen, here.run)
    proven = sum(row["proven"] for row in suites)
    st.text(f"{proven} of {len(suites)} suites of this run have recovered all of their planted truths on its machine.")
    page.text_table(tables.instruments(suites), "Whether each suite has recovered planted truth")
    st.text(errors[:1].upper() + errors[1:])
    if not found:
        st.caption("`weighin calibrate` tries every instrument on planted truth.")
        return
    st.subheader("Planted against recovered")
    numeric = [row for row in found if row["planted"] is not None and row["recovered"] is not None]
    units = sorted({row["unit"] for row in numeric})
    if units:
        usual = max(units, key=lambda unit: sum(row["unit"] == unit for row in numeric))
        unit = page.pick(st, "Unit", units, "unit", default=usual)
        shown = [row for row in numeric if row["unit"] == unit]
        told = f"{sum(row['passed'] for row in shown)} of {len(shown)} planted numbers were recovered."
        st.altair_chart(charts.planted(shown, unit), width="stretch", alt=told)
        st.text(told)
    page.text_table(tables.tries(found), "Every planted truth, and what came out")


page.show("Instruments", draw)
