"""A store behind `weighin serve`, by DuckDB's client-server protocol (extension quack).

A writer sends all statements of its transaction in one request: whatever ends it, the server has all of them or none,
and no transaction stays open behind a client that is gone. Of two that touch one key at once the server refuses one,
which asks again.
"""

import atexit
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from weighin.results.address import TOKEN, Address
from weighin.results.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

EXTENSIONS = ("httpfs", "quack")  # in this order: the second needs the first
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
CLASHES = ("conflict", "another transaction has altered", "duplicate key")
"""What DuckDB says where two transactions touched one key at once."""

_idle: dict[tuple[int, Address], list["Session"]] = {}


def load_extensions(con: duckdb.DuckDBPyConnection) -> None:
    """Load quack from the installed wheels, and nothing from a network. Raises `StoreError` where they are missing."""
    for name in EXTENSIONS:
        found = find_spec(f"duckdb_extension_{name}")
        if found is None or not found.submodule_search_locations:
            raise StoreError(f"a store's server needs duckdb-extension-{name}: pip install 'weighin[serve]'")
        folder = Path(found.submodule_search_locations[0]) / "extensions"
        file = folder / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if not file.is_file():
            made_for = ", ".join(sorted(path.name.lstrip("v") for path in folder.glob("v*"))) or "no version"
            raise StoreError(
                f"duckdb-extension-{name} is for DuckDB {made_for}, and DuckDB {duckdb.__version__} is installed: "
                f"pip install duckdb-extension-{name}=={duckdb.__version__}"
            )
        con.execute(f"load {_literal(str(file))}")


def token() -> str:
    """The shared secret from the environment. Raises `StoreError` where there is none, or one that can be guessed."""
    found = os.environ.get(TOKEN, "")
    if len(found) < 16:
        raise StoreError(
            f"a store's server needs a secret of 16 characters or more in {TOKEN}, the same for server and clients; "
            "make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return found


class Session:
    """One session at a server; a thread's own for as long as it holds it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.con = duckdb.connect(config=CONFIG)
        try:
            load_extensions(self.con)
            self.con.execute("set http_retries = 0")  # a request that may have been served is not sent again
            self.con.execute(f"create secret (type quack, token {_literal(token())})")
            self.con.execute(f"attach {_literal(str(address))} as server (type quack)")
        except duckdb.Error as error:
            self.con.close()
            raise _unreachable(address, error) from None  # its text might hold what the statement held

    def run(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> duckdb.DuckDBPyConnection:
        """Run SQL at the server; its rows are this connection's result."""
        return self.con.execute(f"from server.query({_literal(_filled(sql, params))})")

    def relation(self, sql: str, params: Sequence[Any]) -> duckdb.DuckDBPyRelation:
        """The rows of one statement, to be written to a file here."""
        return self.con.sql(f"from server.query({_literal(_filled(sql, params))})")

    def close(self) -> None:
        with suppress(duckdb.Error):
            self.con.close()


def _unreachable(address: Address, error: duckdb.Error) -> StoreError:
    text = str(error)
    if "Authentication failed" in text:
        return StoreError(f"{address}: the server does not take this secret; {TOKEN} is to be the server's")
    if "connect" in text.lower() or "send message" in text:
        return StoreError(f"{address}: no server answers there; start one: weighin serve --store FILE")
    return StoreError(f"{address}: cannot be opened ({type(error).__name__})")


@contextmanager
def _session(address: Address, patience: float) -> Iterator[Session]:
    """A session that nobody else uses meanwhile; kept for the next when all went well."""
    idle = _idle.setdefault((os.getpid(), address), [])
    session = idle.pop() if idle else _opened(address, patience)
    try:
        yield session
    except BaseException:
        session.close()
        raise
    idle.append(session)


def _opened(address: Address, patience: float) -> Session:
    """A new session with a server that holds a store of this release; waits while it is starting."""
    from weighin.results.database import SCHEMA_VERSION, views_hash

    deadline = time.monotonic() + patience
    while True:
        try:
            session = Session(address)
            break
        except StoreError as error:
            if "no server answers" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.1)
    try:
        facts = dict(session.run("select key, value from meta").fetchall())
    except duckdb.Error:
        facts = {}
    if (facts.get("schema_version"), facts.get("views")) != (str(SCHEMA_VERSION), views_hash()):
        session.close()
        raise StoreError(f"{address}: is no server of this release of Weighin; server and clients need the same one")
    return session


@atexit.register
def close_idle() -> None:
    """End the sessions that nobody uses."""
    for (pid, _), sessions in _idle.items():
        while sessions and pid == os.getpid():
            sessions.pop().close()


class Connection:
    """What the store needs of a connection: rows at once, and statements kept until the transaction is sent."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.batch: list[str] | None = None

    def execute(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> duckdb.DuckDBPyConnection:
        """Run a query; a statement that writes waits for the others of its transaction."""
        if self.batch is None or sql.lstrip().lower().startswith(("select", "from", "with")):
            return self.session.run(sql, params)
        self.batch.append(_filled(sql, params))
        return self.session.con

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement that writes, once a row."""
        for row in rows:
            self.execute(sql, row)

    def append(self, sql: str, frame: "pd.DataFrame") -> None:
        """Run `sql`, which inserts from the table `frame`."""
        assert self.batch is not None, "rows are appended in a transaction"
        self.batch.append(f"with frame as ({_table(frame)}) {sql}")

    def sql(self, query: str, *, params: Sequence[Any] = ()) -> duckdb.DuckDBPyRelation:
        """A query whose rows go to a file of this machine."""
        return self.session.relation(query, params)


@contextmanager
def writing(address: Address, patience: float) -> Iterator[Connection]:
    """One transaction: sent when the block ends well, forgotten otherwise."""
    with _session(address, patience) as session:
        con = Connection(session)
        con.batch = []
        try:
            yield con
            _send(session, con.batch, patience)
        except duckdb.Error as error:
            raise StoreError(f"{address}: nothing was written: {_first_line(error)}") from None


@contextmanager
def reading(address: Address, patience: float) -> Iterator[Connection]:
    """Queries that see one moment of the store; nothing can be written."""
    with _session(address, patience) as session:
        try:
            session.run("begin transaction read only")
            yield Connection(session)
            session.run("rollback")
        except duckdb.Error as error:
            with suppress(duckdb.Error):
                session.run("rollback")
            raise StoreError(f"{address}: the query failed: {_first_line(error)}") from None


def _send(session: Session, batch: Sequence[str], patience: float) -> None:
    """Send a transaction; again where another one was quicker. Waits longer each time, and never in step."""
    if not batch:
        return
    text = ";\n".join(["begin", *batch, "commit"])
    deadline, pause = time.monotonic() + patience, 0.005
    while True:
        try:
            session.run(text).fetchall()
            return
        except duckdb.Error as error:
            with suppress(duckdb.Error):
                session.run("rollback")
            if not any(word in str(error).lower() for word in CLASHES):
                raise
            # a key that is there for good is refused a few times for nothing: both clashes have the same words
            if time.monotonic() >= deadline or ("duplicate key" in str(error).lower() and pause > 0.1):
                raise
        time.sleep(random.uniform(0, pause))
        pause = min(2 * pause, 0.5)


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0].removeprefix("Invalid Input Error: ")


def _filled(sql: str, params: Sequence[Any] | Mapping[str, Any]) -> str:
    """`sql` with its parameters given as literals: the server's own parser puts them into their places."""
    if not params:
        return sql
    if isinstance(params, Mapping):
        values = ", ".join(f"{name} := {_literal(value)}" for name, value in params.items())
    else:
        values = ", ".join(map(_literal, params))
    return f"prepare weighin_statement as {sql}\n;\nexecute weighin_statement({values})"


def _literal(value: Any) -> str:
    """A value as DuckDB writes it. Raises `StoreError` for what no statement can hold."""
    if value is None:
        return "null"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return f"'{value!r}'::double"
    if isinstance(value, date):  # a datetime is one
        return f"'{value.isoformat()}'::timestamptz"
    if isinstance(value, str):
        if "\0" in value:
            raise StoreError("text with a zero byte cannot be sent to a store's server")
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_literal, value)) + "]"
    raise StoreError(f"a {type(value).__name__} cannot be sent to a store's server")


def _table(frame: "pd.DataFrame") -> str:
    """A frame as a query without input: its columns as one JSON text, the quickest that a statement can hold."""
    columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}
    kinds = {name: [_kind(values)] for name, values in columns.items()}
    text = json.dumps(columns, ensure_ascii=False, allow_nan=False)
    picked = ", ".join(f'unnest(content."{name}") as "{name}"' for name in columns)
    return f"select {picked} from (select from_json({_literal(text)}, {_literal(json.dumps(kinds))}) as content)"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _kind(values: Sequence[Any]) -> str:
    for value in values:
        if value is not None:
            return {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}.get(type(value), "VARCHAR")
    return "VARCHAR"
