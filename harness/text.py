"""Documents and rows that a stage reads: text, prompts with answers, preferences, in an order drawn by the seed.

`data` is one of

    reference:NAME             text of the reference world, which comes with the package; reference:corpus is all that
                               the reference models were trained on, written anew by the world's generator
    PATH.txt                   one document a line
    PATH.jsonl                 one object a line, its text under `text` (or `page`), or the columns a stage asks for
    hub:NAME[:CONFIG][:SPLIT]  a data set of the `datasets` library, or a local directory of its files; CONFIG may be
                               empty, SPLIT is `train` if left out, and NAME@REVISION fixes a revision (without one the
                               name alone enters the key, since nothing local can be hashed)
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import weighin.harness
from weighin.results.errors import WeighinError

FIELDS = ("text", "page")
"""Where a row may keep its text, first match."""
ALLOWED = "reference:NAME, a .txt or .jsonl file, or hub:NAME[:CONFIG][:SPLIT]"
CORPUS = "reference:corpus"
WORLD = Path(weighin.harness.__file__).parent / "data" / "world"

Form = Mapping[str, tuple[type, ...]]
"""Columns that a row must hold, and which of str, bool, int, list and tuple each may be. A list is a conversation:
messages, each with a `role` and its `content`. A tuple is a list of texts."""
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    list: "a list of messages with 'role' and 'content'",
    tuple: "a list of texts",
}


class Example(NamedTuple):
    """A row, and where it stands."""

    where: str
    row: Mapping[str, Any]


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
        return sorted(Path(__file__).parent.glob("world*.py")) if data == CORPUS else [_file(data)]
    folder = Path(_hub(data).name).expanduser()
    return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def documents(data: str, *, samples: int | None, seed: int) -> list[str]:
    """At most `samples` documents (None: all) in the order that `seed` draws; WeighinError if there are none."""
    found = in_order(data)
    random.Random(seed).shuffle(found)
    return found[:samples]


def in_order(data: str) -> list[str]:
    """Every document, in the order in which they stand; WeighinError if there are none."""
    found = [text for text in (_text_of(*example) for example in _examples(data)) if text.strip()]
    if not found:
        raise WeighinError(f"data: {data} holds no text")
    return found


def rows(data: str, *, samples: int | None, seed: int, forms: Sequence[Form]) -> list[Example]:
    """At most `samples` rows (None: all) in the order that `seed` draws, with the columns of one form and no others.

    The form is the first of `forms` that the first row has the columns of, and all rows must have it. Raises
    WeighinError at the first row that lacks a column or holds something else under it, and where there are no rows.
    """
    found = list(_examples(data))
    if not found:
        raise WeighinError(f"data: {data} holds no rows")
    form = next((form for form in forms if form.keys() <= found[0].row.keys()), None)
    chosen = [_shaped(example, [form] if form else forms) for example in found]
    random.Random(seed).shuffle(chosen)
    return chosen[:samples]


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
            known = ", ".join([CORPUS, *(f"reference:{p.stem}" for p in sorted(WORLD.glob("*.jsonl")))])
            raise WeighinError(f"data: no reference text {name!r}. Allowed: {known}")
        return path
    path = Path(data).expanduser()
    if not path.is_file():
        raise WeighinError(f"data: no file {data}. Allowed: {ALLOWED}")
    if path.suffix not in {".txt", ".jsonl"}:
        raise WeighinError(f"data: {data} ends in {path.suffix or 'nothing'}. Allowed: {ALLOWED}")
    return path


def _examples(data: str) -> Iterator[Example]:
    """Every row; a line of a .txt file is a row with a `text`."""
    if data == CORPUS:
        from weighin.harness import world

        yield from (Example(f"{data} document {i}", {"text": text}) for i, text in enumerate(world.corpus()))
    else:
        yield from _hub_rows(data) if data.startswith("hub:") else _file_rows(_file(data))


def _file_rows(path: Path) -> Iterator[Example]:
    try:
        # Not splitlines(): a document may hold U+2028, which is no end of line in either format.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise WeighinError(f"data: {path} is not UTF-8 text ({error})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield Example(where, {"text": line.rstrip("\r")} if path.suffix == ".txt" else _row(line, where))


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise WeighinError(f"data: {where} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise WeighinError(f"data: {where} is no JSON object")
    return row


def _text_of(where: str, row: Mapping[str, Any]) -> str:
    for field in FIELDS:
        if isinstance(row.get(field), str):
            return str(row[field])
    raise WeighinError(f"data: {where} has no text under {' or '.join(map(repr, FIELDS))}; its keys are {sorted(row)}")


def _shaped(example: Example, forms: Sequence[Form]) -> Example:
    where, row = example
    missing = [column for column in forms[0] if column not in row]
    if missing:
        needed = "; or ".join(", ".join(map(repr, form)) for form in forms)
        raise WeighinError(
            f"data: {where} has no {', '.join(map(repr, missing))}; its keys are {sorted(row)}. Needed: {needed}"
        )
    for column, kinds in forms[0].items():
        if not any(_is(row[column], kind) for kind in kinds):
            wanted = " or ".join(_KINDS[kind] for kind in kinds)
            raise WeighinError(f"data: {where}: {column!r} is {repr(row[column])[:80]}. Needed: {wanted}")
    return Example(where, {column: row[column] for column in forms[0]})


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and bool(value) and all(_is_message(each) for each in value)
    if kind is tuple:
        return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return bool(value.strip()) if kind is str and isinstance(value, str) else isinstance(value, kind)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _hub(data: str) -> Hub:
    name, config, split = [*data.split(":", 3)[1:], "", ""][:3]
    name, _, revision = name.partition("@")
    if not name:
        raise WeighinError(f"data: {data} names no data set. Allowed: {ALLOWED}")
    return Hub(name, config or None, split or "train", revision or None)


def _hub_rows(data: str) -> Iterator[Example]:
    import datasets

    hub = _hub(data)
    try:
        found: Any = datasets.load_dataset(hub.name, hub.config, split=hub.split, revision=hub.revision)
    except Exception as error:  # the library raises a dozen unrelated kinds; all mean that the user's name is no good
        raise WeighinError(f"data: {data} cannot be loaded ({type(error).__name__}: {error})") from error
    for number, row in enumerate(found):
        yield Example(f"{data} row {number}", row)
