"""The plan: what a spec needs, what is held already, what is left to do. Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weighin.harness import base, checkpoints, keys, machine, registry
from weighin.harness.plugin import Checkpoint, Stage, Suite
from weighin.harness.spec import Spec, Step
from weighin.results.errors import WeighinError
from weighin.results.store import Store


@dataclass(frozen=True)
class Link:
    """One step of a chain with its key: a checkpoint that exists or will."""

    key: str
    parent: str
    root: str
    depth: int
    step: Step

    @property
    def made(self) -> bool:
        """Whether its checkpoint is on disk."""
        return checkpoints.find(self.key) is not None


@dataclass(frozen=True)
class Cell:
    """A variant under a suite: one square of the grid."""

    label: str
    suite: str
    params: Mapping[str, Any]
    variant: str
    evaluation_key: str
    protocol: Mapping[str, Any]
    held: str | None
    """The evaluation in the store that answers it already."""


@dataclass(frozen=True)
class Plan:
    """Everything a run does, in order."""

    spec: Spec
    base: Checkpoint
    chains: Mapping[str, tuple[Link, ...]]
    cells: tuple[Cell, ...]
    unidentified: frozenset[str] = field(default_factory=frozenset)
    """Keys of variants whose identity this machine has not established yet."""

    def variant(self, label: str) -> str:
        """Key of a label's final checkpoint."""
        chain = self.chains[label]
        return chain[-1].key if chain else self.base.key

    def to_make(self) -> list[Link]:
        """Links to make, parents first, each once: only those that something still open stands on."""
        wanted = {c.label for c in self.cells if not c.held}
        wanted |= {label for label in self.chains if self.variant(label) in self.unidentified}
        links: dict[str, Link] = {}
        for label in self.chains:
            if label in wanted:
                links |= {link.key: link for link in self.chains[label] if not link.made}
        return list(links.values())

    def needs(self) -> set[str]:
        """Packages that the stages and suites of the spec import: what they make needs them to be loaded again."""
        stages = {need for chain in self.chains.values() for k in chain for need in registry.stage(k.step.stage).needs}
        return stages | {need for name in self.spec.suites for need in registry.suite(name).needs}

    def open_cells(self) -> list[Cell]:
        """Cells that the store does not answer; variants that share a checkpoint share the work."""
        return list({c.evaluation_key: c for c in self.cells if not c.held}.values())


def make_plan(spec: Spec, store: Store, *, download: bool = True, again: Iterable[str] = ()) -> Plan | None:
    """The plan of a spec against what the store holds; None when the base is on the hub and may not be downloaded.

    `again` names suites that are measured anew although the store holds them. Raises WeighinError.
    """
    found = base.resolve(spec.base, download=download)
    if found is None:
        return None
    links = {label: _links(chain, found.key) for label, chain in spec.chains.items()}
    cells = _cells(spec, links, found)
    held = store.held([c.evaluation_key for c in cells])
    fresh = set(again)
    cells = [_with_held(c, None if c.suite in fresh else held.get(c.evaluation_key)) for c in cells]
    variants = {links[label][-1].key if links[label] else found.key for label in links}
    known = {key for key in variants if store.identity(key, machine.machine_key()) is not None}
    return Plan(spec, found, links, tuple(cells), frozenset(variants - known))


def _with_held(cell: Cell, held: str | None) -> Cell:
    return Cell(cell.label, cell.suite, cell.params, cell.variant, cell.evaluation_key, cell.protocol, held)


def _links(chain: Iterable[Step], root: str) -> tuple[Link, ...]:
    links: list[Link] = []
    for step in chain:
        plugin = registry.stage(step.stage)
        parent = links[-1].key if links else root
        code = keys.code_digest(registry.entry("stage", step.stage).file)
        data = keys.files_digest(_reads(plugin, step.params, step.where))
        key = keys.step_key(parent, step.stage, step.params, code, data, keys.versions(plugin.needs))
        links.append(Link(key, parent, root, len(links) + 1, step))
    return tuple(links)


def _cells(spec: Spec, links: Mapping[str, tuple[Link, ...]], root: Checkpoint) -> list[Cell]:
    here = machine.machine_key()
    protocols = {name: protocol(name, params, spec) for name, params in spec.suites.items()}
    cells: list[Cell] = []
    for label, chain in links.items():
        variant = chain[-1].key if chain else root.key
        for name, params in spec.suites.items():
            key = keys.evaluation_key(variant, name, protocols[name], here)
            cells.append(Cell(label, name, params, variant, key, protocols[name], None))
    return cells


def protocol(name: str, params: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """What must be alike before two results of a suite may be compared: parameters, data, code, versions, dtype."""
    plugin = registry.suite(name)
    loader = Path(__file__).with_name("model.py")
    return {
        "suite": name,
        "params": dict(params),
        "data": keys.files_digest(_reads(plugin, params, f"suites.{name}")),
        "code": keys.digest([keys.code_digest(registry.entry("suite", name).file), keys.code_digest(loader)]),
        "packages": keys.versions({*plugin.needs, "torch", "transformers"}),
        "dtype": spec.base.dtype,
    }


def _reads(plugin: Stage[...] | Suite[...], params: Mapping[str, Any], where: str) -> list[Path]:
    try:
        return list(plugin.reads(params)) if plugin.reads else []
    except WeighinError as error:
        raise WeighinError(f"{where}: {error}") from None
