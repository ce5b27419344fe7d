"""What counts of a module's code in a key: its syntax tree without docstrings, and what it imports.

Parsing every helper of every plugin takes a second: what was found is kept below WEIGHIN_HOME, by the hash of a text.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4


class Source(NamedTuple):
    """The key of a syntax tree without docstrings, and its imports: levels up, and every name that may be a module."""

    tree: str
    imports: tuple[tuple[int, tuple[str, ...]], ...]


@cache
def source(text: str) -> Source:
    """Of a module's text. Raises SyntaxError."""
    from weighin.harness.checkpoints import home  # which needs keys, and they this

    name = hashlib.sha256(f"{sys.version_info[:2]} {text}".encode()).hexdigest()
    kept = home() / "sources" / f"{name}.json"
    try:
        tree, imports = json.loads(kept.read_text(encoding="utf-8"))
        return Source(tree, tuple((level, tuple(names)) for level, names in imports))
    except (OSError, ValueError, TypeError):
        found = _parsed(text)
    _keep(kept, found)
    return found


def _keep(path: Path, found: Source) -> None:
    """For the next process, where there is a home; whoever may not write there parses again."""
    if not path.parent.parent.is_dir():
        return
    beside = path.with_name(f"{path.stem}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(exist_ok=True)
        beside.write_text(json.dumps(found), encoding="utf-8")
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)


def _parsed(text: str) -> Source:
    tree = ast.parse(text)
    imports = tuple(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports)


def _imports(tree: ast.Module) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, (module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names))
        elif isinstance(node, ast.Import):
            yield 0, tuple(alias.name for alias in node.names)
