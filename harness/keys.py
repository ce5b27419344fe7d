"""Content keys: equal keys mean equal work. SHA-256, 256 bits kept, `short` shows 128.

What enters a key is what can change the result: the parent, the plugin's name, its full parameters, its code and its
helpers' code (as syntax trees without docstrings, so that prose changes nothing), the data it reads, the versions of
the packages it needs. A time stamp or a path never does.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from weighin.harness.source import source
from weighin.results.errors import WeighinError

FORMAT = 1
"""Changes when the meaning of a key changes, and with it every key."""


def short(key: str) -> str:
    """The first 128 bits of a key, for people."""
    return key[:32]


def digest(value: Any) -> str:
    """Key of a JSON value; the order of a mapping's entries does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Key of a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeighinError(f"{path}: cannot be read ({error.strerror})") from None


def files_digest(paths: Iterable[Path]) -> str:
    """Key of several files' content, in order; their names do not matter."""
    return digest([file_digest(path) for path in paths])


def folder_digest(folder: Path) -> str:
    """Key of every file below `folder`, names and content; hidden files and our own manifest aside."""
    files = (p for p in folder.rglob("*") if p.is_file())
    relative = sorted(p.relative_to(folder).as_posix() for p in files)
    kept = [name for name in relative if not name.startswith(".") and "/." not in name and name != "weighin.json"]
    return digest([[name, file_digest(folder / name)] for name in kept])


def code_digest(file: Path) -> str:
    """Key of a plugin's code and of the helpers it imports, however far down."""
    helpers = sorted(closure(file), key=lambda path: (path.parent.name, path.name))
    return digest([[path.name, source(path.read_text(encoding="utf-8")).tree] for path in helpers])


def own_digest(file: Path) -> str:
    """Key of one file's code, whatever it imports."""
    return digest(source(file.read_text(encoding="utf-8")).tree)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions by import name; a package that is absent has the version "absent"."""
    return {name: _version(name) for name in sorted(packages)}


def step_key(parent: str, stage: str, params: Mapping[str, Any], code: str, data: str, needs: Mapping[str, str]) -> str:
    """Key of the checkpoint that `stage` makes from the checkpoint `parent`."""
    return digest([FORMAT, "step", parent, stage, params, code, data, needs])


def evaluation_key(variant: str, suite: str, protocol: Mapping[str, Any], machine: str) -> str:
    """Key of one suite's result on one variant on one machine."""
    return digest([FORMAT, "evaluation", variant, suite, protocol, machine])


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return next(_owners(name), "absent")


def _owners(package: str) -> Iterator[str]:
    """Versions of distributions that bring a package under another name than their own, as scikit-learn does."""
    for each in metadata.distributions():
        if f"\n{package}/__init__.py," in f"\n{each.read_text('RECORD') or ''}":
            yield each.version


def closure(file: Path) -> set[Path]:
    """A plugin's file and every helper that it imports, however far down."""
    seen: set[Path] = set()
    todo = [file.resolve()]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(_helpers(path))
    return seen


def _helpers(file: Path) -> Iterator[Path]:
    """Files of this project (or of a plugin's own folder) that `file` imports; the bare contracts are not helpers."""
    for level, names in source(file.read_text(encoding="utf-8")).imports:
        for name in names:
            yield from _module_file(name, file.parent if level else None)


CONTRACTS = {"__init__", "outline", "plugin", "runtime"}
"""What only describes; it changes no result."""


def _module_file(name: str, beside: Path | None) -> Iterator[Path]:
    parts = name.split(".")
    if beside is not None and name:
        candidate = beside.joinpath(*parts).with_suffix(".py")
    elif len(parts) == 3 and parts[0] == "weighin" and parts[1] in {"adapters", "suites", "harness"}:
        if parts[1] == "harness" and parts[2] in CONTRACTS:
            return
        candidate = Path(__file__).resolve().parent.parent / parts[1] / f"{parts[2]}.py"
    else:
        return
    if candidate.is_file():
        yield candidate.resolve()
