"""Reading what other programs wrote. Nothing in it is trusted: not its size, its depth, its numbers or its text."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.results.errors import WeighinError

LARGEST = 1 << 29
"""Bytes of one JSON document; more than that is not read in one piece."""
LONGEST = 160
"""Characters of a name: a longer one is cut, and told apart by a hash."""
DEEPEST = 12
"""Levels of a value that are kept."""


class Unreadable(WeighinError):
    """A file that is not what it should be; nothing of it was kept."""


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises `Unreadable`."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise Unreadable(f"{path}: has {size:,} B; a file of this kind may have {LARGEST:,}")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror or error})") from None


def parsed(data: bytes | str, where: object) -> Any:
    """A JSON document. Raises `Unreadable`, which names `where` it came from."""
    try:
        return json.loads(data)
    except RecursionError:
        raise Unreadable(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"{where}: is not whole JSON ({str(error)[:120]})") from None


def lines(path: Path) -> Iterator[Any]:
    """The JSON values of a JSON-lines file, one at a time; of a file that is one array, its members. Raises
    `Unreadable` at the first line that is not whole."""
    try:
        with path.open("rb") as file:
            if file.read(1) == b"[":
                yield from parsed(read_bytes(path), path)
                return
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield parsed(line, f"{path}:{number}")
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror or error})") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content. Raises `Unreadable`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror or error})") from None


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value; the order of an object's members does not matter."""
    written = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(written.encode()).hexdigest()


def number(value: Any) -> float | None:
    """A finite number, or None for whatever is none: "N/A", NaN, a list, an integer beyond a double."""
    if not isinstance(value, bool | int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A count: a whole number of at least 1, else None."""
    found = number(value)
    return int(found) if found is not None and found >= 1 and found == int(found) else None


def name(value: Any, otherwise: str = "?") -> str:
    """Text for a label or a metric: one line that a terminal cannot take for a command, and not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)[: 20 * LONGEST]).split())
    if len(text) <= LONGEST:
        return text or otherwise
    mark = hashlib.sha256(str(value).encode("utf-8", "replace")).hexdigest()[:8]
    return f"{text[: LONGEST - 9]}…{mark}"


def counted(names: list[str]) -> str | None:
    """Devices in a few words: `8 × NVIDIA A100`."""
    found = {one: names.count(one) for one in names}
    return ", ".join(one if count == 1 else f"{count} × {one}" for one, count in found.items()) or None


def prose(value: Any, depth: int = DEEPEST) -> Any:
    """A JSON value as it can be kept: text that UTF-8 can hold, no deeper than `DEEPEST`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else str(value)[:40]
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {prose(str(key)): prose(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [prose(item, depth - 1) for item in value]
    return prose(str(value))


def moment(value: Any) -> datetime | None:
    """A time from ISO 8601 text (UTC where it names no zone) or from seconds since 1970; None where it is neither."""
    seconds = number(value)
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds, UTC)
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is None:
            return None
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def table(value: Any) -> Mapping[str, Any]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def stated(**fields: Any) -> dict[str, Any]:
    """The fields that say something: without None, empty text and empty objects."""
    return {key: prose(value) for key, value in fields.items() if value not in (None, "", {}, [])}
