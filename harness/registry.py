"""The folder is the registry: a plugin's name is its file's name. Listing reads names and docstrings, imports nothing.

A file whose name would be a Python keyword ends in an underscore, which the plugin's name leaves out: `continue_.py`.

A package of one's own brings more plugins through the entry-point groups `weighin.adapters` and `weighin.suites`; an
entry point's name is the plugin's name and its value the module that holds a stage or suite of that name.
"""

import ast
import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from weighin.harness.plugin import Stage, Suite
from weighin.harness.runtime import Runtime
from weighin.results.errors import WeighinError

Kind = Literal["stage", "suite"]
FOLDERS: dict[Kind, str] = {"stage": "adapters", "suite": "suites"}
SERVED = "endpoint"
"""What stands in a chain like a stage and makes nothing: a server that is said to serve the parent."""


@dataclass(frozen=True)
class Entry:
    """Where a plugin lives; nothing of it is imported yet."""

    kind: Kind
    name: str
    module: str
    file: Path

    def doc(self) -> str:
        """The header docstring of its file."""
        return ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8"))) or ""


def entries(kind: Kind) -> dict[str, Entry]:
    """Every plugin of a kind by name, the project's own first."""
    folder = Path(__file__).resolve().parent.parent / FOLDERS[kind]
    found = {
        path.stem.rstrip("_"): Entry(kind, path.stem.rstrip("_"), f"weighin.{FOLDERS[kind]}.{path.stem}", path)
        for path in sorted(folder.glob("*.py"))
        if not path.stem.startswith("_")
    }
    for point in points(f"weighin.{FOLDERS[kind]}", tuple(sys.path)):
        spec = find_spec(point.module)
        if spec is None or spec.origin is None:
            raise WeighinError(f"entry point {point.name} = {point.value}: module {point.module} is not installed")
        if point.name in found:
            raise WeighinError(f"two plugins are called {point.name!r}: {found[point.name].module} and {point.module}")
        found[point.name] = Entry(kind, point.name, point.module, Path(spec.origin))
    return found


@cache
def points(group: str, path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """What the packages that are installed on `sys.path` register; kept, since every one of them has to be opened."""
    return tuple(metadata.entry_points(group=group))


def entry(kind: Kind, name: str) -> Entry:
    """The plugin of that name, or an error that offers the nearest ones."""
    found = entries(kind)
    if name not in found:
        raise WeighinError(f"no {kind} {name!r}. {suggest(name, found)}")
    return found[name]


def suggest(name: str, allowed: Iterable[str]) -> str:
    """A sentence for an unknown name: the nearest known one, and all of them."""
    known = sorted(allowed)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return meant + (f"There are: {', '.join(known)}." if known else "There are none.")


@cache
def load(kind: Kind, name: str) -> Any:
    """The `Stage` or `Suite` itself. Imports the plugin's module, which imports nothing heavy."""
    if (kind, name) == ("stage", SERVED):
        return import_module("weighin.harness.endpoint_stage").endpoint
    found = entry(kind, name)
    function = found.file.stem if found.module.startswith("weighin.") else name
    plugin = getattr(import_module(found.module), function, None)
    wanted = Stage if kind == "stage" else Suite
    if not isinstance(plugin, wanted):
        raise WeighinError(f"{found.file}: a {kind} file holds a function {function!r} decorated with @{kind}")
    return plugin


def stage(name: str) -> Stage[...]:
    """The stage of that name."""
    plugin: Stage[...] = load("stage", name)
    return plugin


def suite(name: str) -> Suite[...]:
    """The suite of that name."""
    plugin: Suite[...] = load("suite", name)
    return plugin


def missing(needs: Iterable[str]) -> list[str]:
    """The packages among `needs` (import names) that are not installed; nothing is imported."""
    return [name for name in needs if find_spec(name) is None]


def absent(plugin: Stage[...] | Suite[...]) -> list[str]:
    """What a plugin imports and is not installed; an environment of its own is not looked into."""
    return [] if isinstance(plugin, Stage) and plugin.environment else missing(plugin.needs)


def opened(folder: Path, name: str) -> Runtime:
    """A checkpoint opened by the runtime of the stage that wrote it. WeighinError where that stage has none."""
    opens = stage(name).opens
    if opens is None:
        raise WeighinError(f"{folder}: stage {name} brings no runtime that opens it")
    return opens(folder)


DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "sklearn": "scikit-learn", "vl_convert": "vl-convert-python"}
"""What is installed under another name than it is imported by."""


def install_command(packages: Iterable[str]) -> str:
    """The command that installs what is missing: an extra of ours where it covers it, else the packages."""
    absent = set(packages)
    for extra, covered in extras().items():
        if absent <= covered:
            return f"pip install 'weighin[{extra}]'"
    return "pip install " + " ".join(sorted(DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in absent))


@cache
def extras() -> dict[str, set[str]]:
    """Import names that each extra of ours brings directly, smallest extra first."""
    import re

    table: dict[str, set[str]] = {}
    imported = {package: name for name, package in DISTRIBUTIONS.items()}
    try:
        required = metadata.requires("weighin") or []
    except metadata.PackageNotFoundError:  # in a managed environment it is a link
        return {}
    for line in required:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]+)\])?[^;]*;\s*extra == ['\"]([\w-]+)['\"]", line)
        if match:
            package, inner, extra = match.groups()
            names = table.setdefault(extra, set())
            own = {imported.get(package, package.replace("-", "_"))}
            names |= {f"weighin[{part.strip()}]" for part in inner.split(",")} if inner else own
    flat = {extra: _flatten(extra, table) for extra in table}
    return dict(sorted(flat.items(), key=lambda pair: len(pair[1])))


def _flatten(extra: str, table: dict[str, set[str]]) -> set[str]:
    names: set[str] = set()
    for name in table.get(extra, set()):
        names |= _flatten(name[8:-1], table) if name.startswith("weighin[") else {name}
    return names
