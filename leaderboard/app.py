"""The page: which run, its table, what has no number and why, a Pareto front, the gate's verdict.

`weighin board` serves it. Text from outside (labels, metrics, reasons, messages) goes only where Streamlit shows it as
it is, `st.text`, data frames, options and chart data; what `st.markdown` and its kin get is written in this file.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from weighin.leaderboard import charts, frames, fronts, history, tables
from weighin.leaderboard.frames import Board, Measure, Row, open_store
from weighin.leaderboard.words import label_width, text_table
from weighin.results.address import Place, place
from weighin.results.errors import WeighinError
from weighin.results.front import Front, front
from weighin.results.gate import Verdict, exit_code
from weighin.results.history import Series
from weighin.results.history import history as read_history
from weighin.results.instruments import of_run, tries
from weighin.results.opening import stamp
from weighin.results.rates import in_words as gate_errors

# Streamlit would print a bare string of this file on the page, so what constants mean is said in comments here.

# Seconds between two looks at whether the store has changed.
POLL = 5.0

OUTCOMES = {
    "pass": ("pass", "green", ":material/check_circle:"),
    "fail": ("fail", "red", ":material/cancel:"),
    "inconclusive": ("inconclusive", "orange", ":material/help:"),
}
RELEASE: dict[int, tuple[str, Callable[..., Any]]] = {
    0: ("The release passes: every gate rule does.", st.success),
    1: ("The release fails: at least one gate rule does.", st.error),
    3: ("No verdict yet: no gate rule fails, and not every one passes.", st.warning),
}

# What changes whenever the store does: the key of every cached answer.
Stamp = tuple[int, ...]


def main() -> None:
    """Draw the page once."""
    st.set_page_config(page_title="Weighin", page_icon="⚖️", layout="wide")
    st.title("Weighin")
    path = place(os.environ.get("WEIGHIN_STORE", "weighin.duckdb"))
    seen = stamp(path)
    try:
        board = _choose_run(path, seen)
        judged = _judgement(path, seen, board.run)
        _release(judged)
        _leaderboard(board)
        _absences(board)
        _pareto(path, seen, board)
        _gate(judged)
        _instruments(path, seen, board.run)
        _history(path, seen, board)
        _figures(board)
    except WeighinError as error:
        _explain(error)
    st.fragment(_watch, run_every=POLL)(path, seen)


def _watch(path: Place, seen: Stamp) -> None:
    """Draw the page anew once the store has changed, so that it follows a run in flight."""
    if stamp(path) != seen:
        st.rerun()


def _explain(error: WeighinError) -> None:
    """One sentence instead of a traceback."""
    st.warning("There is nothing to show from this store.", icon=":material/info:")
    st.text(str(error))
    st.caption(
        "Another store: `weighin board --store FILE`. A damaged one: put a copy of it back, or move it away and "
        "`weighin run` makes a new one."
    )
    st.button("Try again")


# -- answers, each kept until the store changes ---------------------------------------------------------------------


def _runs(path: Place, seen: Stamp) -> list[Row]:
    return frames.runs(open_store(path))


def _read(path: Place, seen: Stamp, run: Row) -> Board:
    return frames.read_board(open_store(path), run)


def _placed(path: Place, seen: Stamp, axes: tuple[str, str], run: str) -> Front:
    return front(open_store(path), axes, run)


def _judged(path: Place, seen: Stamp, run: Row) -> list[Verdict]:
    return frames.verdicts(open_store(path), run)


def _tried(path: Place, seen: Stamp, run: str) -> tuple[list[Row], list[Row], str]:
    store = open_store(path)
    return of_run(store, run), tries(store, run), gate_errors(store, run)


def _nights(path: Place, seen: Stamp, metric: str, run: str) -> list[Series]:
    try:
        return read_history(open_store(path), metric, run=run)
    except WeighinError:  # every run of this spec took it from another's
        return []


def kept(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Cached by its arguments, the stamp among them; few, and not for long, as a store may be large."""
    return st.cache_data(answer, max_entries=32, ttl=600, show_spinner="Reading the store")  # type: ignore[no-any-return]


read_runs, read_board, read_front, read_verdicts = kept(_runs), kept(_read), kept(_placed), kept(_judged)
read_instruments, read_nights = kept(_tried), kept(_nights)

# -- the parts of the page, top to bottom -----------------------------------------------------------------------------


def _choose_run(path: Place, seen: Stamp) -> Board:
    known = {run["run_id"]: run for run in read_runs(path, seen)}
    chosen = st.selectbox("Run", list(known), format_func=lambda key: frames.run_title(known[key]))
    board: Board = read_board(path, seen, known[chosen])
    st.text(frames.run_sentence(board))
    return board


def _leaderboard(board: Board) -> None:
    st.subheader("Variants", divider="gray")
    known = frames.measures(board)
    chosen = _choose_measures(known, board)
    numbers, words = tables.table(board, chosen)
    # Streamlit counts the index as the first of the columns
    room = [label_width(board.variants), *tables.widths(words)]
    config = {place: st.column_config.Column(width=pixels) for place, pixels in enumerate(room)}
    st.dataframe(tables.styled(numbers, words), placeholder="–", width="stretch", column_config=config)  # pyright: ignore[reportArgumentType]
    st.caption(
        "Values with their 95 % intervals and the number of items n; ↑ more is better, ↓ less is better. A click on a "
        "header sorts by number. *Modelled* figures rest on an assumption such as a power rating; *dense kernel* means "
        "that the runtime only simulates the format: neither enters a front or the gate. *Imported* "
        "figures are another tool's."
    )


def _choose_measures(known: Sequence[Measure], board: Board) -> list[Measure]:
    """The columns: suites first, then metrics of these."""
    left, right = st.columns([1, 2])
    run = board.run["run_id"]
    # the grid knows every suite from the start, the scores only once they are in
    suites = list(dict.fromkeys([*(m.suite for m in known), *(cell["suite"] for cell in board.cells)]))
    wanted = left.multiselect("Suites", suites, default=suites, key=f"suites {run}")
    offered = [m for m in known if m.suite in wanted]
    first = frames.headlines(board, offered)
    # the key names the default, so that other suites, or metrics of a run in flight, bring their own headlines
    key = f"metrics {run} {[m.name for m in first]}"
    return list(right.multiselect("Metrics", offered, default=first, format_func=lambda m: m.name, key=key))


def _absences(board: Board) -> None:
    found = tables.absences(board)
    if found.empty:
        return
    st.markdown("**What has no number, and why**")
    text_table(found)


def _pareto(path: Place, seen: Stamp, board: Board) -> None:
    st.subheader("Pareto front", divider="gray")
    known, cost, quality = frames.axes(board)
    if cost is None or quality is None:
        st.text("A front needs a metric where less is better and one where more is: this run has no such pair.")
        return
    across, up = st.columns(2)
    x = across.selectbox("Across", known, known.index(cost), format_func=lambda m: m.name)
    y = up.selectbox("Up", known, known.index(quality), format_func=lambda m: m.name)
    if x.name == y.name:
        st.text("A front needs two different metrics: choose another for one of the axes.")
        return
    found = fronts.build(board, read_front(path, seen, (x.name, y.name), board.run["run_id"]), x, y)
    drawn = found.drawn
    log_x, log_y = _logarithmic(across, found, "x"), _logarithmic(up, found, "y")
    if len(drawn):
        st.altair_chart(charts.pareto(found, log_x=log_x, log_y=log_y), width="stretch")
    st.caption(
        "On the front: nobody beats its figures. Possibly: somebody does, but no paired test shows it. Confidently "
        "dominated: a test does, in every objective. Stable: the share of bootstrap draws in which a variant is on the "
        "front, no probability. `weighin front` takes more objectives, tolerances and a reference point."
    )
    st.text(fronts.in_words(found))
    text_table(fronts.listed(found))


def _logarithmic(place: Any, found: fronts.Front, axis: str) -> bool:
    """A switch for a logarithmic axis, there where every value is above zero."""
    can = fronts.positive(found.drawn, axis)
    key = f"log {axis} {found.x.name if axis == 'x' else found.y.name}"
    return bool(place.toggle("Logarithmic", fronts.wide(found.drawn, axis), key=key, disabled=not can)) and can


def _judgement(path: Place, seen: Stamp, run: Row) -> list[Verdict] | WeighinError:
    """The verdicts on the run, or why its rules could not be applied, which leaves the rest of the page standing."""
    try:
        return list(read_verdicts(path, seen, run))
    except WeighinError as error:
        return error


def _release(judged: list[Verdict] | WeighinError) -> None:
    """What the gate says of the release, at the top where nobody can miss it."""
    if isinstance(judged, list) and judged:
        said, box = RELEASE[exit_code(judged)]
        box(said)


def _gate(judged: list[Verdict] | WeighinError) -> None:
    """Each rule with its verdict and why."""
    st.subheader("Gate", divider="gray")
    if isinstance(judged, WeighinError):
        st.warning("The gate rules of this run could not be judged.")
        st.text(str(judged))
    elif not judged:
        st.text("The spec of this run has no gate rules.")
    else:
        for verdict in judged:
            _verdict(verdict)


def _verdict(verdict: Verdict) -> None:
    rule = verdict.rule
    word, colour, icon = OUTCOMES[verdict.outcome]
    left, right = st.columns([1, 6])
    left.badge(word, icon=icon, color=colour)  # pyright: ignore[reportArgumentType]
    watch = ", watched only" if rule.role == "watch" else ""
    told = f"{frames.short(verdict.metric)}: {frames.short(str(rule), 200)}{watch}"
    right.text(f"{told}\n{frames.short(verdict.why, 500)}")


def _instruments(path: Place, seen: Stamp, run: Row) -> None:
    """Whether the suites of the run have recovered planted truth on its machine, and each try."""
    st.subheader("Instruments", divider="gray")
    suites, found, errors = read_instruments(path, seen, run["run_id"])
    st.dataframe(tables.instruments(suites), hide_index=True, width="stretch")
    st.text(errors)
    if found:
        with st.expander("Every planted truth, and what came out"):
            st.dataframe(tables.tries(found), hide_index=True, width="stretch")
    else:
        st.caption("`weighin calibrate` tries every instrument on planted truth.")


def _history(path: Place, seen: Stamp, board: Board) -> None:
    """A metric over the runs of this spec on this class of machine."""
    known = frames.measures(board)
    with st.expander("History, night by night"):
        left, right = st.columns(2)
        metric = left.selectbox("Metric over time", known, format_func=lambda m: m.name)
        found = read_nights(path, seen, metric.name, board.run["run_id"]) if metric else []
        named = {each.variant: each for each in found}
        variant = right.selectbox("Variant over time", list(named))
        if variant is None:
            st.text("No run of this spec has measured it.")
            return
        series = named[variant]
        if len(series.nights) >= history.FEWEST:
            st.altair_chart(history.chart(series), width="stretch")
        st.text(history.in_words(series))
        st.dataframe(history.frame(series), hide_index=True, width="stretch")


def _figures(board: Board) -> None:
    with st.expander("Every figure of this run, in base units"):
        st.dataframe(tables.figures(board), hide_index=True, width="stretch")


main()
