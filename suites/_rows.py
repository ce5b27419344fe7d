"""Rows of published data sets, read from JSON-lines files that a user names."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from weighin.harness import WeighinError

Row = Mapping[str, Any]


def files(parameter: str, names: Sequence[str]) -> list[Path]:
    """The files a parameter names. Raises WeighinError where one is missing."""
    paths = [Path(name).expanduser() for name in names]
    for path in paths:
        if not path.is_file():
            raise WeighinError(f"{parameter}: no file {path} (looked in {Path.cwd()})")
    return [path.resolve() for path in paths]


def read(parameter: str, names: Sequence[str], columns: Iterable[str], limit: int | None = None) -> list[Row]:
    """The first `limit` rows of each file (None: all). Raises WeighinError at one that lacks a column."""
    needed = tuple(columns)
    found: list[Row] = []
    for path in files(parameter, names):
        rows = list(_rows(parameter, path, needed))
        if not rows:
            raise WeighinError(f"{parameter}: {path} holds no rows")
        found.extend(rows[:limit])
    return found


def _rows(parameter: str, path: Path, columns: tuple[str, ...]) -> Iterable[Row]:
    # Not splitlines(): a text may hold U+2028, which ends no line of JSON.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise WeighinError(f"{parameter}: {path}:{number} is not JSON ({error})") from None
        missing = [column for column in columns if not isinstance(row, dict) or column not in row]
        if missing:
            keys = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise WeighinError(f"{parameter}: {path}:{number} has no {', '.join(missing)}; it has {keys}")
        yield row


def item(row: Any) -> str:
    """The content hash of a row, by which samples of two variants are joined."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return sha256(text.encode()).hexdigest()[:32]


def items(rows: Sequence[Row]) -> list[str]:
    """Content hashes of rows; the second of two equal rows is told apart by a count."""
    seen: dict[str, int] = {}
    keys: list[str] = []
    for row in rows:
        key = item(row)
        seen[key] = seen.get(key, 0) + 1
        keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return keys
