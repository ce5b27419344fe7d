"""Variant: what one of them turned out to be, how it was made, every figure, what it says, and its model card."""

from typing import Any

import pandas as pd
import streamlit as st

from weighin.leaderboard import lineage, page, tables
from weighin.leaderboard.frames import Board, Row, open_store, short
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place
from weighin.results.items import Output, outputs
from weighin.results.model_card import model_card

# Suites whose verdicts have a place of their own.
VERDICTS = ("reliability", "contamination", "privacy")


@page.kept
def read_chain(path: Place, seen: Stamp, key: str, machine: str) -> list[Row]:
    """The variant and its ancestors."""
    return lineage.chain(open_store(path), key, machine)


@page.kept
def read_outputs(path: Place, seen: Stamp, evaluation: str, text: str) -> list[Output]:
    """Some of what it said."""
    return outputs(open_store(path), evaluation, text)


def draw(here: Here) -> None:
    """The page from top to bottom."""
    board = here.board
    if not board.cards:
        st.text("This run has no variants.")
        return
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    name = page.pick(left, "Variant", board.variants, "variant", default=board.variants[-1])
    card = next(card for card in board.cards if card["variant"] == name)
    if right.button("Compare with its parent or base", disabled=card["stage"] is None, width="stretch"):
        page.go("compare", a=card["parent"] or board.variants[0], b=name)
    if card["variant_key"] is None:
        st.text("It was not made: a stage of its chain failed; the page Runs has the reason.")
    else:
        _tiles(card)
        _identity(here, card)
    _figures(board, name)
    _outputs(here, name)
    st.download_button(
        "Model card", lambda: model_card(here.store, here.run, name), f"{_file(name)}.md", "text/markdown",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def _file(name: str) -> str:
    """A label as the name of a file."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:60]


def _tiles(card: Row) -> None:
    """Size at a glance."""
    places = st.columns(4)
    facts = tables.tiles(card)
    for place, (label, value) in zip(places, facts, strict=True):
        place.metric(label, value, border=True)


def _identity(here: Here, card: Row) -> None:
    steps = read_chain(here.path, here.seen, card["variant_key"], here.board.run["machine_key"])
    st.subheader("How it was made")
    page.text_table(lineage.table(here.board, steps), "The chain of stages, the base first")
    added = lineage.sums(here.board, steps)
    if added:
        st.text(added)
    with st.expander("Identity: what was found when it was reloaded from disk", expanded=True):
        wide = st.column_config.Column(width="large")
        page.text_table(lineage.card(card), "Identity", found=wide, what=st.column_config.Column(width="medium"))


def _figures(board: Board, name: str) -> None:
    st.subheader("What was measured")
    rows = lineage.figures(board, name)
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    if not suites:
        st.text("Nothing yet.")
        return
    front = [suite for suite in suites if suite in VERDICTS]
    wanted = page.picks(st, "Suites", suites, "of", default=suites)
    st.caption("Verdicts on calibration, contamination and leaks are the suites " + ", ".join(VERDICTS) + "."
               if front else "Calibration, contamination and leaks were not measured in this run.")  # fmt: skip
    shown = tables.of_variant([row for row in rows if row["suite"] in wanted])
    page.text_table(shown, "Every figure of the variant", value=st.column_config.Column(width="medium"),
                    note=st.column_config.Column(width="large"))  # fmt: skip
    page.downloads(shown, "variant")


def _outputs(here: Here, name: str) -> None:
    st.subheader("What it says")
    ran = {
        cell["suite"]: cell["evaluation_id"]
        for cell in here.board.cells
        if cell["variant"] == name and cell["status"] == "ok" and cell["evaluation_id"]
    }
    if not ran:
        st.text("No suite has measured it yet.")
        return
    left, right = st.columns(2)
    told = [suite for suite in TELLING if suite in ran]
    suite = page.pick(left, "Asked by", [*told, *(each for each in ran if each not in told)], "asked")
    text = page.search(right, "Search its answers", "find", "in prompt or answer")
    found = read_outputs(here.path, here.seen, ran[suite], text)
    if not found:
        st.text("The suite keeps no text of its own." if not text else "No prompt or answer holds this text.")
        return
    rows: list[dict[str, Any]] = [
        {"prompt": short(each.prompt, 2000), "output": short(each.output, 2000), "right": each.target} for each in found
    ]
    page.text_table(pd.DataFrame(rows, dtype="object"), f"What the variant answered to {len(rows)} items")


# Suites that keep a model's words, those with free text first.
TELLING = ("rag", "safety", "toxicity", "accuracy", "robustness")

page.show("Variant", draw)
