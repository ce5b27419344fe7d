"""A store's server: one process holds the file, and many write and read through it (`weighin serve`)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from weighin.results.address import Address
from weighin.results.database import held, writing
from weighin.results.errors import StoreError
from weighin.results.remote import load_extensions, token

CHECK = 1.0
"""Seconds between two looks whether the server still listens: whoever has the secret may stop it."""


@contextmanager
def serving(path: Path, address: Address, *, patience: float = 10.0) -> Iterator[duckdb.DuckDBPyConnection]:
    """The store `path`, made or brought up to date where needed, served at `address` until the block ends.

    Clients may do with the store what they like, and nothing else: no file and no other address can be reached through
    the server. Raises `StoreError`, among others where `WEIGHIN_TOKEN` holds no secret.
    """
    secret = token()
    with writing(path, patience):
        pass
    with held(path, patience) as con:
        try:
            load_extensions(con)
            con.execute(
                "call quack_serve($where, token := $secret, allow_other_hostname := $open)",
                {"where": str(address), "secret": secret, "open": not address.loopback},
            )
            con.execute("set enable_external_access = false")
            con.execute("set lock_configuration = true")
        except duckdb.Error as error:
            said = str(error).replace(secret, "…").strip().splitlines()[0]
            raise StoreError(f"{address}: cannot be served: {said}") from None
        yield con


def wait(con: duckdb.DuckDBPyConnection, stop: threading.Event) -> None:
    """Return when `stop` is set. Raises `StoreError` where a client ended the server."""
    while not stop.wait(CHECK):
        if not con.execute("from quack_server_list()").fetchall():
            raise StoreError("a client stopped the server; start it again: what was written is kept")
