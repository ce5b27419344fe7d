"""Answers of the store that several pages show, each kept until the store changes."""

from dataclasses import dataclass

from weighin.leaderboard import frames, fronts
from weighin.leaderboard.frames import Board, Row, open_store
from weighin.leaderboard.page import Stamp, kept, read_board
from weighin.results.address import Place
from weighin.results.errors import WeighinError
from weighin.results.front import Front, front
from weighin.results.gate import Verdict
from weighin.results.instruments import of_run, tries
from weighin.results.rates import in_words as gate_errors


@dataclass(frozen=True)
class Refused:
    """Why there is no answer."""

    why: str


@kept
def read_front(path: Place, seen: Stamp, axes: tuple[str, ...], run: str) -> Front | Refused:
    """The front, or why there is none."""
    try:
        return front(open_store(path), axes, run)
    except WeighinError as error:
        return Refused(str(error))


@kept
def read_chains(path: Place, seen: Stamp, run: str) -> list[tuple[str, str]]:
    """Parents and children of the run's variants."""
    return fronts.chains(read_board(path, seen, run), frames.parents(open_store(path)))


@kept
def read_verdicts(path: Place, seen: Stamp, run: str) -> list[Verdict] | Refused:
    """The verdicts on the run, or why its rules could not be applied, which leaves the rest of the page standing."""
    board: Board = read_board(path, seen, run)
    try:
        return frames.verdicts(open_store(path), board.run)
    except WeighinError as error:
        return Refused(str(error))


@kept
def read_instruments(path: Place, seen: Stamp, run: str) -> tuple[list[Row], list[Row], str]:
    """What calibrations found on the run's machine: a row a suite, a row an instrument, and the gate's error rates."""
    store = open_store(path)
    return of_run(store, run), tries(store, run), gate_errors(store, run)
