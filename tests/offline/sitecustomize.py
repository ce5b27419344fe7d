"""Every connection to another machine fails, in this process and in all that it starts: Python imports this by itself
where the folder is on PYTHONPATH. Tests run so, and thereby show that nothing needs the network that says it does not.
"""

import socket
from typing import Any

_connect, _look_up = socket.socket.connect, socket.getaddrinfo


def _local(host: Any) -> bool:
    return host in ("::1", "localhost") or str(host).startswith("127.")


def _connect_here(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]):
        raise OSError(101, f"tests have no network: {address[0]}")
    _connect(self, address)


def _look_up_here(host: Any, *args: Any, **kwargs: Any) -> Any:
    if host not in (None, "") and not _local(host):
        raise socket.gaierror(-3, f"tests have no network: {host}")
    return _look_up(host, *args, **kwargs)


socket.socket.connect = _connect_here  # type: ignore[method-assign]
socket.getaddrinfo = _look_up_here
