"""Requests to an OpenAI-compatible server over HTTP: tried again with patience, never more at once than allowed.

What goes wrong on the way (no connection, a stall, an answer cut short or garbled, 429, 5xx) is tried again after a
pause that doubles, or after the pause that the server asks for. What the server refuses (400, 401, 404, 422) is not.
The key goes into one header and nowhere else: it is cut out of whatever a server says before anybody sees it.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from weighin.results.errors import WeighinError

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
PATIENCE = 300.0
"""The longest pause that a server may ask for, s; one that asks for more has no room today."""
SHOWN = 200
"""Characters of a server's own words that a message quotes."""

T = TypeVar("T")


class EndpointError(WeighinError):
    """The server did not answer, or not with what was asked for."""


class Refused(EndpointError):
    """The server understood, and will not: asking again is of no use."""


class _Hiccup(Exception):
    """A failure that may pass: what happened, and the pause that the server asks for, s."""

    def __init__(self, said: str, pause: float | None = None) -> None:
        super().__init__(said)
        self.pause = pause


@dataclass
class Client:
    """A server. `timeout`: seconds for a whole answer, or between two pieces of a stream; `tries` of each request."""

    url: str
    key: str = ""
    concurrency: int = 4
    timeout: float = 60.0
    tries: int = 5
    retried: int = field(default=0, init=False)
    """Requests that had to be made again so far."""
    _room: threading.Semaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._room = threading.Semaphore(self.concurrency)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path. Raises EndpointError, and Refused where there is none."""
        return self._again(lambda: self._object("GET", path, None))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that is the answer to another. Raises EndpointError."""
        return self._again(lambda: self._object("POST", path, body))

    def all(self, path: str, bodies: Sequence[Mapping[str, Any]], what: str = "requests") -> list[dict[str, Any]]:
        """The answers to several requests, in order, as many at a time as the server may be asked."""
        from tqdm import tqdm

        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self.post, path, body) for body in bodies]
            try:
                return [future.result() for future in tqdm(futures, desc=what)]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def stream(self, path: str, body: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
        """The events of a streamed answer, each with the seconds from the request at which it came.

        A stream that breaks off is asked for again from its beginning, and timed anew.
        """
        return self._again(lambda: list(self._events(path, {**body, "stream": True})))

    def hidden(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self.key, "[key]") if self.key else text

    # -- one try ------------------------------------------------------------------------------------------------

    def _again(self, ask: Callable[[], T]) -> T:
        said = ""
        for number in range(self.tries):
            try:
                with self._room:
                    return ask()
            except _Hiccup as hiccup:
                said, pause = str(hiccup), hiccup.pause
            except (OSError, HTTPException) as error:
                said, pause = f"{type(error).__name__}: {self.hidden(str(error))}".rstrip(": "), None
            if pause is not None and pause > PATIENCE:
                raise EndpointError(f"{self.url}: {said}; it asks to come again in {pause:.0f} s")
            if number + 1 < self.tries:
                self.retried += 1
                backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2**number) * random.uniform(0.5, 1.0)
                time.sleep(backoff if pause is None else pause)
        raise EndpointError(f"{self.url}: {said} (tried {self.tries} times)")

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout
        with self._asked(method, path, body) as (answer, connection):
            parts: list[bytes] = []
            while part := answer.read1(1 << 16):
                parts.append(part)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _Hiccup(f"its answer was not complete after {self.timeout:g} s")
                if connection.sock is not None:
                    connection.sock.settimeout(left)
            if answer.length:
                raise _Hiccup(f"its answer was cut short by {answer.length} bytes")
        return self._parsed(b"".join(parts))

    def _events(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
        began, ended = time.perf_counter(), False
        with self._asked("POST", path, body) as (answer, _):
            for line in answer:
                if not line.startswith(b"data:"):
                    continue
                text = line[5:].strip()
                if text == b"[DONE]":
                    return
                event = self._parsed(text)
                if "error" in event:
                    raise _Hiccup(f"its stream ended in an error: {self._quoted(text)}")
                ended = ended or any(choice.get("finish_reason") for choice in event.get("choices") or ())
                yield time.perf_counter() - began, event
        if not ended:
            raise _Hiccup("its stream was cut short")

    @contextmanager
    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[tuple[HTTPResponse, HTTPConnection]]:
        at = urlsplit(self.url)
        kind = HTTPSConnection if at.scheme == "https" else HTTPConnection
        connection = kind(at.hostname or "", at.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "User-Agent": "weighin"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            text = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{at.path.rstrip('/')}/{path}", text, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise self._failure(answer)
            yield answer, connection
        finally:
            connection.close()

    def _failure(self, answer: HTTPResponse) -> Exception:
        said = f"HTTP {answer.status}: {self._quoted(answer.read1(1 << 16))}".rstrip(": ")
        if answer.status in AGAIN:
            return _Hiccup(said, _pause(answer.getheader("Retry-After")))
        return Refused(f"{self.url}: {said}")

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError:
            raise _Hiccup(f"its answer is not JSON: {self._quoted(text)}") from None
        if not isinstance(found, dict):
            raise _Hiccup(f"its answer is not a JSON object: {self._quoted(text)}")
        return found

    def _quoted(self, text: bytes) -> str:
        """The beginning of what a server said, on one line; the key is cut out first, so that no half of it is left."""
        return " ".join(self.hidden(text.decode("utf-8", "replace")).split())[:SHOWN]


def _pause(header: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date (RFC 9110, 10.2.3); None without one."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
