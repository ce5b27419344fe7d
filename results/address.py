"""Where a store is: a file, or a server that holds one (`quack:host:port`, what `weighin serve` offers)."""

import re
from dataclasses import dataclass
from pathlib import Path

from weighin.results.errors import StoreError

SCHEME = "quack:"
PORT = 9494
TOKEN = "WEIGHIN_TOKEN"
"""The environment variable that holds what server and clients share; it is never printed and never kept."""


@dataclass(frozen=True)
class Address:
    """A store's server."""

    host: str
    port: int = PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether it is this machine, reached by no network."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


Place = Path | Address


def place(given: "Path | str | Address") -> Place:
    """A store's place as it was named. Raises `StoreError` for an address that is none."""
    if isinstance(given, Address):
        return given
    if not str(given).startswith(SCHEME):
        return Path(given).expanduser().absolute()
    found = re.fullmatch(r"quack:(?://)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?", str(given))
    if found is None or not 0 < int(found[2] or PORT) < 65536:
        raise StoreError(f"{given}: is no address of a store; write quack:HOST:PORT, as in quack:127.0.0.1:{PORT}")
    return Address(found[1].strip("[]"), int(found[2] or PORT))
