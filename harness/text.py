"""Documents that a stage reads: calibration and training text, in an order drawn by the seed.

`data` is one of

    reference:NAME             text of the reference world, which comes with the package
    PATH.txt                   one document a line
    PATH.jsonl                 one object a line, its text under `text` (or `page`)
    hub:NAME[:CONFIG][:SPLIT]  a data set of the `datasets` library, or a local directory of its files; CONFIG may be
                               empty, SPLIT is `train` if left out, and NAME@REVISION fixes a revision (without one the
                               name alone enters the key, since nothing local can be hashed)
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import weighin.harness
from weighin.results.errors import WeighinError

FIELDS = ("text", "page")
"""Where a row may keep its text, first match."""
ALLOWED = "reference:NAME, a .txt or .jsonl file, or hub:NAME[:CONFIG][:SPLIT]"
WORLD = Path(weighin.harness.__file__).parent / "data" / "world"


class Hub(NamedTuple):
    """What `hub:...` asks for."""

    name: str
    config: str | None
    split: str
    revision: str | None


def text_files(params: Mapping[str, Any]) -> list[Path]:
    """Local files behind the parameter `data`; none for a data set that only the hub has."""
    data = str(params["data"])
    if not data.startswith("hub:"):
        return [_file(data)]
    folder = Path(_hub(data).name).expanduser()
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def documents(data: str, *, samples: int | None, seed: int) -> list[str]:
    """At most `samples` documents (None: all) in the order that `seed` draws; WeighinError if there are none."""
    rows = _hub_rows(data) if data.startswith("hub:") else _file_rows(_file(data))
    found = [text for text in rows if text.strip()]
    if not found:
        raise WeighinError(f"data: {data} holds no text")
    random.Random(seed).shuffle(found)
    return found[:samples]


def encode(tokenizer: Any, texts: Iterable[str], max_length: int) -> list[list[int]]:
    """Token ids of each document as its tokenizer begins it, cut to `max_length`."""
    rows: list[list[int]] = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise WeighinError(f"data: no document is longer than one token (max_length: {max_length})")
    return rows


def _file(data: str) -> Path:
    kind, colon, name = data.partition(":")
    if colon and kind == "reference":
        path = WORLD / f"{name}.jsonl"
        if not path.is_file():
            known = ", ".join(f"reference:{p.stem}" for p in sorted(WORLD.glob("*.jsonl"))) or "none is installed"
            raise WeighinError(f"data: no reference text {name!r}. Allowed: {known}")
        return path
    path = Path(data).expanduser()
    if not path.is_file():
        raise WeighinError(f"data: no file {data}. Allowed: {ALLOWED}")
    if path.suffix not in {".txt", ".jsonl"}:
        raise WeighinError(f"data: {data} ends in {path.suffix or 'nothing'}. Allowed: {ALLOWED}")
    return path


def _file_rows(path: Path) -> Iterator[str]:
    try:
        # Not splitlines(): a document may hold U+2028, which is no end of line in either format.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise WeighinError(f"data: {path} is not UTF-8 text ({error})") from None
    for number, line in enumerate(lines, start=1):
        if path.suffix == ".txt":
            yield line.rstrip("\r")
        elif line.strip():
            yield _text_of(_row(line, f"{path}:{number}"), f"{path}:{number}")


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise WeighinError(f"data: {where} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise WeighinError(f"data: {where} is no JSON object")
    return row


def _text_of(row: Mapping[str, Any], where: str) -> str:
    for field in FIELDS:
        if isinstance(row.get(field), str):
            return str(row[field])
    raise WeighinError(f"data: {where} has no text under {' or '.join(map(repr, FIELDS))}; its keys are {sorted(row)}")


def _hub(data: str) -> Hub:
    name, config, split = [*data.split(":", 3)[1:], "", ""][:3]
    name, _, revision = name.partition("@")
    if not name:
        raise WeighinError(f"data: {data} names no data set. Allowed: {ALLOWED}")
    return Hub(name, config or None, split or "train", revision or None)


def _hub_rows(data: str) -> Iterator[str]:
    import datasets

    hub = _hub(data)
    try:
        rows: Any = datasets.load_dataset(hub.name, hub.config, split=hub.split, revision=hub.revision)
    except Exception as error:  # the library raises a dozen unrelated kinds; all mean that the user's name is no good
        raise WeighinError(f"data: {data} cannot be loaded ({type(error).__name__}: {error})") from error
    for number, row in enumerate(rows):
        yield _text_of(row, f"{data} row {number}")
