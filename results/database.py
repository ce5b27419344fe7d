"""Opening the database file: locks, retries, versions and migrations. One message for everything that can go wrong."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import duckdb

from weighin.results.errors import StoreError

MIGRATIONS = ("schema.sql", "schema_2.sql", "schema_3.sql", "schema_4.sql", "schema_5.sql", "schema_6.sql")
"""SQL files in order: the one at index i brings a store from version i to i + 1."""

SCHEMA_VERSION = len(MIGRATIONS)

# A store never reaches for the network; every connection of a process must be configured alike.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class _Busy(Exception):
    """Another process (or a connection of another kind in this one) holds the file; asking again may help."""


def _sql(name: str) -> str:
    return files("weighin.results").joinpath(name).read_text(encoding="utf-8")


def views_hash() -> str:
    """SHA-256 of the views' text, kept in the store so that a newer release replaces older views."""
    return hashlib.sha256(_sql("views.sql").encode()).hexdigest()


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), read_only=read_only, config=_CONFIG)
    except duckdb.ConnectionException as error:
        if "different configuration" in str(error):
            raise _Busy(f"{path}: this process has the store open in another mode") from error
        raise StoreError(f"{path}: cannot be opened: {_first_line(error)}") from error
    except duckdb.IOException as error:
        if "set lock on file" in str(error):
            raise _Busy(f"{path}: {_first_line(error)}") from error
        if "not a valid DuckDB database" in str(error):
            if path.stat().st_size == 0:  # another process is about to write the header
                raise _Busy(f"{path}: is an empty file, not a DuckDB database; delete it or name another") from error
            raise StoreError(f"{path}: is not a DuckDB database; name another file with --store") from error
        raise StoreError(f"{path}: cannot be opened: {_first_line(error)}") from error
    except duckdb.Error as error:
        raise StoreError(f"{path}: cannot be opened: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _patiently(path: Path, *, read_only: bool, patience: float) -> duckdb.DuckDBPyConnection:
    """Open `path`, asking again with growing pauses for at most `patience` seconds while it is held elsewhere."""
    deadline, pause = time.monotonic() + patience, 0.01
    while True:
        try:
            return _connect(path, read_only=read_only)
        except _Busy as busy:
            if time.monotonic() >= deadline:
                raise StoreError(f"{busy}. Gave up after {patience:g} s; try again when the other is done") from busy
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, 0.25)


def _state(con: duckdb.DuckDBPyConnection) -> dict[str, str] | None:
    """The store's own facts; None for an empty database."""
    tables = {row[0] for row in con.execute("select table_name from duckdb_tables() where not internal").fetchall()}
    if not tables:
        return None
    if "meta" not in tables:
        return {}
    columns = {row[0] for row in con.execute("select column_name from (describe meta)").fetchall()}
    if columns != {"key", "value"}:
        return {}
    return dict(con.execute("select key, value from meta").fetchall())


def _version(state: dict[str, str] | None, path: Path) -> int:
    if state is None:
        return 0
    text = state.get("schema_version", "")
    if not text.isdigit():
        raise StoreError(f"{path}: is a DuckDB database but not a Weighin store; name another file with --store")
    if int(text) > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: was written by a newer Weighin (schema {text}, this one knows up to {SCHEMA_VERSION}); "
            "upgrade Weighin or name another file with --store"
        )
    return int(text)


def _migrate(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Bring the store to this release's tables and views: each step all of it or nothing, the views with the last.

    A step of its own transaction: DuckDB cannot alter a table that has rows in two steps of one.
    """
    state = _state(con)
    version = _version(state, path)
    if version == SCHEMA_VERSION and (state or {}).get("views") == views_hash():
        return
    steps = list(enumerate(MIGRATIONS, start=1))[version:]
    if version == 0:  # nothing is there to be altered: all at once, so that a new store is whole or not there
        _apply(con, [sql for _, sql in steps] + ["views.sql"], SCHEMA_VERSION)
        return
    for number, name in steps:
        _apply(con, [name], number)
    _apply(con, ["views.sql"], SCHEMA_VERSION)


def _apply(con: duckdb.DuckDBPyConnection, names: Sequence[str], version: int) -> None:
    """Run SQL files and keep what the store is after them, in one transaction."""
    con.begin()
    try:
        con.execute("create table if not exists meta (key varchar primary key, value varchar not null)")
        for name in names:
            con.execute(_sql(name))
        facts = [("schema_version", str(version))] + [("views", views_hash())] * ("views.sql" in names)
        con.executemany("insert or replace into meta values (?, ?)", facts)
        con.commit()
    except BaseException:
        with suppress(duckdb.TransactionException):  # a commit that failed has ended it
            con.rollback()
        raise


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path}: is a directory; name a file with --store")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: its directory does not exist; make it or name another file with --store")


@contextmanager
def writing(path: Path, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """One transaction, committed when the block ends well and rolled back otherwise. Creates the store if needed."""
    _check_place(path)
    con = _patiently(path, read_only=False, patience=patience)
    try:
        _migrate(con, path)
        con.begin()
        try:
            yield con
            con.commit()
        except BaseException:
            with suppress(duckdb.TransactionException):  # a commit that failed has ended it
                con.rollback()
            raise
    except duckdb.Error as error:
        raise StoreError(f"{path}: nothing was written: {_first_line(error)}") from error
    finally:
        con.close()


@contextmanager
def reading(path: Path, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection for one query; brings a store of an older release up to date first."""
    _check_place(path)
    if not path.exists():
        raise StoreError(f"{path}: there is no store yet; run `weighin run` first, or name another file with --store")
    con = _patiently(path, read_only=True, patience=patience)
    try:
        if _stale(con, path):
            con.close()
            with writing(path, patience):
                pass
            con = _patiently(path, read_only=True, patience=patience)
        yield con
    except duckdb.Error as error:
        raise StoreError(f"{path}: the query failed: {_first_line(error)}") from error
    finally:
        con.close()


@contextmanager
def held(path: Path, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that keeps the file for itself as long as the block lasts; no transaction is open."""
    con = _patiently(path, read_only=False, patience=patience)
    try:
        yield con
    finally:
        con.close()


@contextmanager
def current(path: Path, patience: float) -> Iterator[bool]:
    """Whether a store has this release's schema and views, which is held for reading and left as it is meanwhile.

    Raises `StoreError` where there is none, and for one of a newer release.
    """
    _check_place(path)
    if not path.exists():
        raise StoreError(f"{path}: there is no such store; name a file that `weighin run --store FILE` wrote")
    con = _patiently(path, read_only=True, patience=patience)
    try:
        yield not _stale(con, path)
    finally:
        con.close()


def _stale(con: duckdb.DuckDBPyConnection, path: Path) -> bool:
    state = _state(con)
    if state is None:
        raise StoreError(f"{path}: holds no run yet; run `weighin run` first")
    return _version(state, path) < SCHEMA_VERSION or state.get("views") != views_hash()
