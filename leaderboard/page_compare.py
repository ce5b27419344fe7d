"""Compare: two variants item by item, with verdicts, what flipped, and in which fields their protocols differ."""

import pandas as pd
import streamlit as st

from weighin.leaderboard import flips, page
from weighin.leaderboard.frames import open_store, short
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place
from weighin.results.compare import Report, compare
from weighin.results.items import Item, differing
from weighin.results.lookup import quality


@page.kept
def read_report(path: Place, seen: Stamp, sides: tuple[str, str], run: str) -> Report:
    """Every metric that both have, paired."""
    return compare(open_store(path), *sides, run=run)


@page.kept
def read_items(path: Place, seen: Stamp, metric: str, ids: tuple[str, str], text: str) -> list[Item]:
    """The items on which the two differ."""
    return differing(open_store(path), metric, ids, text)


def draw(here: Here) -> None:
    """The page from top to bottom."""
    labels = here.board.variants
    if len(labels) < 2:
        st.text("A comparison needs two variants: this run has fewer.")
        return
    left, right = st.columns(2)
    a = page.pick(left, "From", labels, "a", default=labels[0])
    b = page.pick(right, "To", labels, "b", default=labels[1])
    report = read_report(here.path, here.seen, (a, b), here.run)
    for note in report.notes:
        st.text(f"{short(note, 300)}.")
    st.text(flips.sentence(report))
    shown = flips.differences(report)
    if len(shown):
        drop = st.column_config.Column("drop [95 %]", width="medium")
        page.text_table(shown, f"Paired differences of {len(shown)} metrics", **{"drop": drop})
        page.downloads(shown, "differences")
        st.caption(
            "A positive drop means that the second is worse. Better and worse are shown by a two-sided paired test "
            "at 5 %, each metric by itself; p is not adjusted for how many there are. *No test* says why there is none."
        )
    _items(here, report)
    refused = flips.refusals(report)
    if len(refused):
        with st.expander(f"What cannot be compared, and the fields that differ ({len(refused)})"):
            page.text_table(refused, "What cannot be compared")


def _items(here: Here, report: Report) -> None:
    """The items that came out differently, and one of them whole."""
    names = flips.with_items(report)
    if not names:
        return
    st.subheader("Item by item")
    left, right = st.columns(2)
    name = page.pick(left, "Metric", names, "metric", default=flips.first(report, quality(here.board.scores)))
    text = page.search(right, "Search the items", "find", "in prompt, choices or answers")
    suite, _, metric = name.partition(".")
    ids = (str(report.a.cells[suite].evaluation_id), str(report.b.cells[suite].evaluation_id))
    found = read_items(here.path, here.seen, metric, ids, text)
    if not found:
        st.text("No item differs." if not text else "No item that differs holds this text.")
        return
    st.text(flips.count(found, better=flips.way(report, name)))
    shown = flips.items(found, flips.sides(report), flips.way(report, name))
    event = st.dataframe(
        shown, hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row", key=f"items {name}",
        column_config={"prompt": st.column_config.Column(width="large")}, height="content" if len(shown) < 9 else 330,
        alt="Items that differ, the largest differences first",
    )  # fmt: skip
    rows = [row for row in event.selection.rows if row < len(found)]
    asked = [n for n, item in enumerate(found) if item.item == st.query_params.get("item")]
    at = rows or asked or [0]
    st.query_params["item"] = found[at[0]].item
    _whole(found[at[0]], flips.sides(report))


def _whole(item: Item, names: tuple[str, str]) -> None:
    """One item with its prompt, its choices, both answers and their log-likelihoods."""
    with st.container(border=True):
        st.caption("The item that is ticked")
        st.text(item.prompt)
        rows = flips.choices(item, names)
        if len(rows):
            page.text_table(rows, "Choices with the log-likelihood that either gives them, nat")
        else:
            told = {name: [gave.text or "not kept"] for name, gave in zip(names, item.gave, strict=True)}
            page.text_table(pd.DataFrame({"right": [item.target], **told}, dtype="object"), "Both answers")


page.show("Compare", draw)
