"""Environments of their own, for stages whose libraries do not go with ours, as pre-commit keeps them for its hooks.

A stage names one, `@stage(environment="openvino")`. Beside its file lies `environments/openvino.txt`: every package
with its exact version, one `name==version` a line, dependencies included, since they are installed as listed and
nothing is resolved. A line that ends in `# with dependencies` is the exception: what the package requires on this
platform comes with it, at the listed versions where there are any (an accelerator's libraries need no list of ours).

An environment is a directory under WEIGHIN_HOME named after the hash of its list, whole or not there at all; what is
listed, and not what is installed in ours, enters the keys of what it makes. Imports nothing heavy.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weighin.harness import registry
from weighin.harness.checkpoints import MANIFEST, home
from weighin.harness.keys import digest, versions
from weighin.harness.plugin import Stage
from weighin.results.errors import WeighinError

PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")
WITH = "with dependencies"


@dataclass(frozen=True)
class Pin:
    """A line of a list: a package, its version, and whether what it requires comes with it."""

    name: str
    version: str
    dependencies: bool = False

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Environment:
    """A name and its list; the directory need not exist."""

    name: str
    pins: tuple[Pin, ...]
    stages: tuple[str, ...] = ()
    """The stages that name it."""

    @property
    def packages(self) -> dict[str, str]:
        """Listed versions by name."""
        return {pin.name: pin.version for pin in self.pins}

    @property
    def key(self) -> str:
        """Key of the list on this Python, whose minor version decides which files are installed."""
        lines = sorted([pin.name, pin.version, pin.dependencies] for pin in self.pins)
        return digest([lines, list(sys.version_info[:2])])

    @property
    def folder(self) -> Path:
        """Where it is or will be."""
        return place() / f"{self.name}-{self.key[:16]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def ready(self) -> bool:
        """Whether it is there; a half-made one is not."""
        return (self.folder / MANIFEST).is_file() and self.python.exists()

    @property
    def command(self) -> str:
        """What makes it."""
        return f"weighin setup {self.name}"

    @property
    def missing(self) -> str:
        """What is said where it is not there."""
        return f"the environment {self.name} is not set up on this machine: {self.command}"

    def made(self) -> dict[str, Any]:
        """What its making wrote down; empty where it is not there."""
        path = self.folder / MANIFEST
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found


def place() -> Path:
    """The directory of all environments."""
    return home() / "environments"


def all_of_them() -> dict[str, Environment]:
    """Every environment that a stage names, by name.

    Raises WeighinError where a stage's list is missing or malformed, and where two lists go by one name.
    """
    found: dict[str, Environment] = {}
    for stage, entry in registry.entries("stage").items():
        name = registry.stage(stage).environment
        if not name:
            continue
        pins = read(entry.file.parent / "environments" / f"{name}.txt", stage)
        known = found.get(name)
        if known and known.pins != pins:
            raise WeighinError(
                f"stages {known.stages[0]} and {stage} bring two lists for one environment {name!r}; give one of them "
                "another name"
            )
        found[name] = Environment(name, pins, (*(known.stages if known else ()), stage))
    return found


def find(name: str) -> Environment:
    """The environment of that name, or an error that offers the nearest ones."""
    found = all_of_them()
    if name not in found:
        raise WeighinError(f"no environment {name!r}. {registry.suggest(name, found)}")
    return found[name]


def of_stage(stage: str) -> Environment | None:
    """The environment that a stage names; None where it runs in ours."""
    name = registry.stage(stage).environment
    return find(name) if name else None


def step_versions(stage: str, plugin: Stage[...]) -> Mapping[str, str]:
    """Versions of what a stage stands on: of its environment's whole list, else of the packages it needs of ours."""
    named = of_stage(stage)
    return named.packages if named else versions(plugin.needs)


def canonical(name: str) -> str:
    """A distribution's name as all its spellings have it in common (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(name: str, imports: Iterable[str]) -> dict[str, str]:
    """What the list of an environment says of packages that go by their import names here."""
    packages = find(name).packages
    named = {each: canonical(registry.DISTRIBUTIONS.get(each, each)) for each in sorted(imports)}
    return {each: packages.get(distribution, "absent") for each, distribution in named.items()}


def read(path: Path, stage: str) -> tuple[Pin, ...]:
    """The pins of a list. WeighinError names the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise WeighinError(f"stage {stage}: its environment's list {path} cannot be read ({error.strerror})") from None
    pins: dict[str, Pin] = {}
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        if not text.strip():
            continue
        match = PIN.fullmatch(text.strip())
        if match is None:
            raise WeighinError(f"{path}:{number}: {text.strip()!r} is no pin. Allowed: name==version")
        name = canonical(match[1])
        if name in pins:
            raise WeighinError(f"{path}:{number}: {name} is listed twice")
        pins[name] = Pin(name, match[2], comment.strip() == WITH)
    if not pins:
        raise WeighinError(f"{path}: lists nothing")
    return tuple(pins.values())
