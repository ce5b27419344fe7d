"""Leaderboard: one row a variant, in significance tiers by one metric, with every figure that is asked for."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import streamlit as st

from weighin.leaderboard import filters, frames, page, tables
from weighin.leaderboard.frames import Board, Measure, open_store
from weighin.leaderboard.page import Here, Stamp
from weighin.results.address import Place
from weighin.results.errors import WeighinError
from weighin.results.lookup import quality
from weighin.results.tiers import Ranking, rank

# Rows that are drawn at a time.
MOST = 50
# Rows of a long list that are sent to the browser; the files hold them all.
FIRST = 500


@page.kept
def read_ranking(path: Place, seen: Stamp, metric: str, run: str) -> Ranking:
    """Tiers by a metric, or why there are none."""
    try:
        return rank(open_store(path), metric, run)
    except WeighinError as error:
        return Ranking(metric, (), (), str(error))


@page.kept
def read_figures(path: Place, seen: Stamp, run: str) -> object:
    """Every figure as a table."""
    return tables.figures(page.read_board(path, seen, run))


@page.kept
def read_absences(path: Place, seen: Stamp, run: str) -> object:
    """What has no number."""
    return tables.absences(page.read_board(path, seen, run))


def draw(here: Here) -> None:
    """The page from top to bottom."""
    board = here.board
    st.text(frames.run_sentence(board))
    known = [m for m in board.measures if m.better != "none"]
    if not known:
        st.text("No metric of this run has a figure yet; what is missing, and why, stands on the page Runs.")
        _absences(here, board.variants)
        return
    first, second, third = st.columns([2, 2, 2])
    best = quality(board.scores)
    usual = next((m for m in known if m.name == best), known[0])
    by = page.measure(first, "Rank by", known, "by", usual)
    assert by is not None, "there are metrics to choose from"
    suites = list(dict.fromkeys([*(m.suite for m in board.measures), *(cell["suite"] for cell in board.cells)]))
    wanted = page.picks(second, "Suites", suites, "suites", default=suites[:6])
    text = page.search(third, "Find a variant", "text", "part of its label")
    left, right = st.columns([2, 1])
    keep = _filters(left, board, text)
    ranking = read_ranking(here.path, here.seen, by.name, here.run)
    chosen = _columns(right, board, wanted)
    _told(ranking, len(keep), len(board.cards))
    ordered = tables.ordered(board, ranking, set(keep))
    if ordered.cards:
        _table(ordered, ranking, chosen)
    else:
        st.text("No variant passes all filters: take one away.")
    _absences(here, keep)
    _figures(here, keep)


def _filters(place: Any, board: Board, text: str) -> list[str]:
    """The variants that pass."""
    bases = filters.bases(board)
    names = ("bases", "stages", "size", "sources")
    with place.expander(
        "Filters", expanded=any(name in st.query_params for name in names), icon=":material/filter_alt:"
    ):
        places = st.columns(4)
        chosen = page.picks(places[0], "Base", list(bases), "bases", named=lambda key: bases.get(key, key))
        stages = page.picks(places[1], "Stage", filters.stages(board), "stages")
        size = page.pick(
            places[2], "On disk", ["", *filters.SIZES], "size", named=lambda name: name or "Any size"
        )  # fmt: skip
        sources = page.picks(places[3], "Source", filters.sources(board), "sources")
    return filters.Filter(text, chosen, stages, size, sources).keeps(board)


def _columns(place: Any, board: Board, suites: Sequence[str]) -> list[Measure]:
    """The metrics that are shown: each suite's leading one unless others are asked for."""
    offered = {m.name: m for m in board.measures if m.suite in suites}
    first = [m.name for m in frames.headlines(board, list(offered.values()))]
    with place.expander("Columns", icon=":material/view_column:", expanded="columns" in st.query_params):
        names = page.picks(st, "Metrics shown", list(offered), "columns", default=first)
    if st.session_state.get("columns of") != suites:  # other suites bring their own leading metrics
        st.session_state["columns of"] = list(suites)
        if "columns" not in st.query_params:
            names = first
    return [offered[name] for name in names]


def _told(ranking: Ranking, shown: int, whole: int) -> None:
    st.text(f"{shown} of {whole} variants, ranked by {frames.short(ranking.metric)}." if shown < whole else
            f"{whole} variants, ranked by {frames.short(ranking.metric)}.")  # fmt: skip
    if ranking.caveat:
        st.text(f"No tiers: {frames.short(ranking.caveat, 300)}.")


def _table(board: Board, ranking: Ranking, chosen: Sequence[Measure]) -> None:
    above = st.container()
    at = 1
    if len(board.cards) > MOST:
        at = st.pagination(ceil(len(board.cards) / MOST), key=f"rows {ranking.metric}")
    first = (at - 1) * MOST
    piece = tables.ordered(board, ranking, set(board.variants[first : first + MOST]))
    numbers, words = tables.ranked(piece, ranking, chosen)
    room = [page.label_width(piece.variants), *tables.widths(words)]
    # Streamlit counts the index as the first of the columns
    config: Any = {place: st.column_config.Column(width=pixels) for place, pixels in enumerate(room)}
    picture = 2 if ranking.tiers else 1
    config[picture] = st.column_config.ImageColumn(width=170)
    event = st.dataframe(
        tables.styled(numbers, words, {picture - 1}), placeholder="–", width="stretch", column_config=config,
        on_select="rerun", selection_mode="multi-row", key="rows", height="content" if len(piece.cards) <= 20 else 740,
        alt="Variants with their figures, best first",
    )  # fmt: skip
    _open(above, [piece.variants[row] for row in event.selection.rows if row < len(piece.variants)])
    st.caption(
        "Values with their 95 % intervals and the number of items n; ↑ more is better, ↓ less is better. Within a tier "
        "nobody is shown to be worse than its best (paired, one-sided, Holm-adjusted, 5 %). *Modelled* figures rest on "
        "an assumption such as a power rating; *dense kernel* means that the runtime only simulates the format: "
        "neither enters a front or the gate. *Imported* figures are another tool's."
    )


def _open(place: Any, rows: Sequence[str]) -> None:
    """What can be done with the rows that are ticked."""
    with place:
        left, right, told = st.columns([1, 1, 3], vertical_alignment="center")
        if left.button("Open variant", disabled=len(rows) != 1, width="stretch"):
            page.go("variant", variant=rows[0])
        if right.button("Compare two", disabled=len(rows) != 2, width="stretch"):
            page.go("compare", a=rows[0], b=rows[1])
        told.caption("Tick one row to open it, two to compare them.")


def _absences(here: Here, keep: Sequence[str]) -> None:
    found = read_absences(here.path, here.seen, here.run)
    found = found[found["variant"].isin(keep)]
    if len(found):
        with st.expander(f"What has no number, and why ({len(found):,})"):
            if len(found) > FIRST:
                st.caption(f"The first {FIRST}.")
            page.text_table(found.head(FIRST), "What has no number, and why")


def _figures(here: Here, keep: Sequence[str]) -> None:
    with st.expander("Every figure, in base units, and as a file"):
        found = read_figures(here.path, here.seen, here.run)
        shown = found[found["variant"].isin(keep)]
        page.downloads(shown, "figures")
        if len(shown) > FIRST:
            st.caption(f"The first {FIRST} of {len(shown):,}; the files hold all.")
        st.dataframe(shown.head(FIRST), hide_index=True, width="stretch", alt="Every figure of these variants")


page.show("Leaderboard", draw)
