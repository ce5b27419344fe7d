"""A store for one transaction or one query, wherever it is: in a file, or behind a server."""

from contextlib import AbstractContextManager, suppress

import duckdb

from weighin.results import database, remote
from weighin.results.address import Address, Place

Connection = duckdb.DuckDBPyConnection | remote.Connection


def writing(place: Place, patience: float) -> AbstractContextManager[Connection]:
    """One transaction: kept when the block ends well, nothing of it otherwise. Raises `StoreError`."""
    return remote.writing(place, patience) if isinstance(place, Address) else database.writing(place, patience)


def reading(place: Place, patience: float) -> AbstractContextManager[Connection]:
    """A connection that only reads, and sees one moment. Raises `StoreError`."""
    return remote.reading(place, patience) if isinstance(place, Address) else database.reading(place, patience)


def stamp(place: Place) -> tuple[int, ...]:
    """What changes whenever the store does: time and size of the file and of its write-ahead log (of one that is not
    there, nothing); of a server, how much it holds.
    """
    if isinstance(place, Address):
        with remote.reading(place, 10.0) as far:
            found = far.execute(
                """select (select count(*) from evaluations), (select count(*) from verdicts),
                       (select count(*) from calibrations), (select count(ended_at) from runs),
                       (select count(*) filter (where status <> 'planned') from cells)"""
            ).fetchone()
        return tuple(found or ())
    states: list[int] = []
    for name in (place, place.with_name(place.name + ".wal")):
        with suppress(OSError):
            state = name.stat()
            states += [state.st_mtime_ns, state.st_size]
    return tuple(states)
