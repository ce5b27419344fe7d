"""What all pages share: the store and the run, choices that live in the address, answers kept until the store changes.

Text from outside (labels, metrics, prompts, reasons) goes only where Streamlit shows it as it is: `st.text`, data
frames, options and chart data. What `st.markdown` and its kin get is written in this folder.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from weighin.leaderboard import frames
from weighin.leaderboard.frames import Board, Measure, Row, open_store
from weighin.results import address
from weighin.results.address import Place
from weighin.results.errors import WeighinError
from weighin.results.opening import stamp
from weighin.results.store import Store

POLL = 5.0
"""Seconds between two looks at whether the store has changed."""

PAGES = ("overview", "leaderboard", "pareto", "variant", "compare", "nightly", "instruments", "runs")
"""The pages in order; each is the file `page_NAME.py`."""

Stamp = tuple[int, ...]
"""What changes whenever the store does: part of the key of every answer that is kept."""


@dataclass(frozen=True)
class Here:
    """What a page is drawn of: the store, as of when, and the run that was chosen."""

    path: Place
    seen: Stamp
    board: Board

    @property
    def run(self) -> str:
        return str(self.board.run["run_id"])

    @property
    def store(self) -> Store:
        return open_store(self.path)


def kept(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Cached by its arguments, the stamp among them; few, and not for long. Nobody may change what it gives."""
    return st.cache_resource(answer, max_entries=64, ttl=600, show_spinner="Reading the store")  # type: ignore[no-any-return]


@kept
def read_runs(path: Place, seen: Stamp) -> list[Row]:
    """Every run, newest first."""
    return frames.runs(open_store(path))


@kept
def read_board(path: Place, seen: Stamp, run: str) -> Board:
    """One run as it stands."""
    known = {row["run_id"]: row for row in read_runs(path, seen)}
    return frames.read_board(open_store(path), known[run])


def show(title: str, draw: Callable[[Here], None]) -> None:
    """Draw a page, or one sentence where the store cannot be shown; draw it anew whenever the store changes."""
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    left.title(title)
    try:
        path = address.place(os.environ.get("WEIGHIN_STORE", "weighin.duckdb"))
        seen = stamp(path)
    except WeighinError as error:  # a server that does not answer
        _explain(error)
        return
    try:
        draw(_here(right, path, seen))
    except WeighinError as error:
        _explain(error)
    st.fragment(_watch, run_every=POLL)(path, seen, time.monotonic())


def _here(place: Any, path: Place, seen: Stamp) -> Here:
    runs = read_runs(path, seen)
    known = {run["run_id"]: run for run in runs}
    machines = frames.machines(runs)
    if len(machines) > 1:
        machine = pick(place, "Machine", ["", *machines], "machine", named=lambda key: machines.get(key, "Any machine"))
        known = {key: run for key, run in known.items() if machine in ("", run["machine_key"])}
    run = pick(place, "Run", list(known), "run", named=lambda key: frames.run_title(known[key]))
    return Here(path, seen, read_board(path, seen, run))


def _watch(path: Place, seen: Stamp, drawn: float) -> None:
    """Draw the page anew once the store has changed, so that it follows a run in flight.

    Not at once: while a run writes without a pause a page would never be shown.
    """
    if time.monotonic() - drawn > POLL / 2 and stamp(path) != seen:
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


# -- choices, which live in the address so that a view can be shared ----------------------------------------------


def pick(
    place: Any, label: str, options: Sequence[str], name: str, *, default: str | None = None, named: Any = str
) -> str:
    """One of `options`, in the address under `name` unless it is the default (the first); "" where there are none."""
    if not options:
        return ""
    usual = default if default in options else options[0]
    _arrange(name, st.query_params.get(name), lambda value: value in options, usual)
    chosen = str(place.selectbox(label, options, format_func=named, key=name))
    _tell(name, chosen, usual)
    return chosen


def picks(
    place: Any, label: str, options: Sequence[str], name: str, *, default: Sequence[str] = (), named: Any = str
) -> list[str]:
    """Some of `options`, in the address under `name` unless they are the default."""
    usual = [each for each in default if each in options]
    asked = [each for each in st.query_params.get_all(name) if each] if name in st.query_params else None
    _arrange(name, asked, lambda value: set(value) <= set(options), usual)
    chosen = list(place.multiselect(label, options, format_func=named, key=name))
    _tell(name, chosen, usual)
    return chosen


def search(place: Any, label: str, name: str, hint: str = "") -> str:
    """Text to look for, in the address under `name` unless it is empty."""
    _arrange(name, st.query_params.get(name), lambda value: True, "")
    chosen = str(place.text_input(label, key=name, placeholder=hint))
    _tell(name, chosen, "")
    return chosen.strip()


def switch(place: Any, label: str, name: str, *, default: bool = False, disabled: bool = False) -> bool:
    """A switch, in the address under `name` as 1 or 0 unless it is as usual."""
    asked = st.query_params.get(name)
    _arrange(name, None if asked is None else asked == "1", lambda value: True, default)
    chosen = bool(place.toggle(label, key=name, disabled=disabled))
    _tell(name, chosen, default)
    return chosen and not disabled


def _arrange(name: str, asked: Any, fits: Callable[[Any], bool], usual: Any) -> None:
    """Set a widget before it is drawn: to what the address asks, where that is news; else it stays if it still fits."""
    told, state = f"told {name}", st.session_state
    if asked is not None and asked != state.get(told) and fits(asked):
        state[name] = asked
    elif name not in state or not fits(state[name]):
        before = state.get(told)
        state[name] = before if before is not None and fits(before) else usual


def _tell(name: str, chosen: Any, usual: Any) -> None:
    """Keep a choice for the other pages and in the address."""
    st.session_state[f"told {name}"] = chosen
    if chosen == usual:
        st.query_params.pop(name, None)
    elif isinstance(chosen, bool):
        st.query_params[name] = str(int(chosen))
    else:
        st.query_params[name] = chosen if chosen != [] else [""]


def measure(place: Any, label: str, known: Sequence[Measure], name: str, default: Measure | None) -> Measure | None:
    """One of these metrics; None where there are none."""
    by_name = {m.name: m for m in known}
    return by_name.get(pick(place, label, list(by_name), name, default=default.name if default else None))


def go(page: str, **given: str) -> None:
    """Open another page with these choices."""
    st.switch_page(f"page_{page}.py", query_params=given)


# -- tables --------------------------------------------------------------------------------------------------------

_ROOM = ("reason", "why", "what", "prompt", "output", "detail")


def text_table(frame: pd.DataFrame, name: str, **config: Any) -> None:
    """A table of words with a name for whoever cannot see it; reasons get the room."""
    told = {column: st.column_config.Column(width="large") for column in _ROOM if column in frame}
    if "variant" in frame:
        told["variant"] = st.column_config.Column(width=label_width(frame["variant"]), pinned=True)
    st.dataframe(frame, hide_index=True, width="stretch", column_config=told | config, alt=name)


def label_width(labels: Iterable[str]) -> int:
    """Pixels for the widest label, but never so many that a telephone shows nothing else."""
    return min(22 + 8 * max(map(len, labels), default=0), 180)


def downloads(frame: pd.DataFrame, name: str) -> None:
    """Two buttons that write a table as CSV and as Parquet, when they are clicked."""
    left, right, _ = st.columns([1, 1, 3])
    for place, kind in ((left, "CSV"), (right, "Parquet")):
        place.download_button(
            kind, lambda kind=kind: as_file(frame, kind), f"{name}.{kind.lower()}", icon=":material/download:",
            key=f"{name} {kind}", width="stretch", on_click="ignore",
        )  # fmt: skip


def as_file(frame: pd.DataFrame, kind: str) -> bytes:
    """A table's bytes as CSV or Parquet."""
    if kind == "CSV":
        return frame.to_csv(index=False).encode()
    return bytes(frame.to_parquet(index=False) or b"")
