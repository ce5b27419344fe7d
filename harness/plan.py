"""The plan: what a spec needs, what is held already, what is left to do. Imports no torch."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weighin.harness import base, checkpoints, environments, keys, machine, registry
from weighin.harness.chain import Chains, Link, reads
from weighin.harness.endpoint import settled
from weighin.harness.plugin import Checkpoint
from weighin.harness.spec import Spec
from weighin.results.errors import WeighinError
from weighin.results.store import Store

PROCESS = tuple(map(Path(__file__).with_name, ("worker.py", "preload.py")))
"""What a job's process begins with, which times and bytes depend on."""


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
    environment: str = ""
    """The managed environment in which it is measured; empty: ours."""


@dataclass(frozen=True)
class Plan:
    """Everything a run does, in order."""

    spec: Spec
    base: Checkpoint
    chains: Mapping[str, tuple[Link, ...]]
    cells: tuple[Cell, ...]
    unidentified: frozenset[str] = field(default_factory=frozenset)
    """Keys of variants whose identity this machine has not established yet."""
    elsewhere: Mapping[str, Checkpoint] = field(default_factory=dict)
    """Models that parameters name and that are no variant of the spec, by key."""

    def variant(self, label: str) -> str:
        """Key of a label's final checkpoint."""
        chain = self.chains[label]
        return chain[-1].key if chain else self.base.key

    def to_make(self) -> list[Link]:
        """Links to make, parents first, each once: only those that something still open stands on."""
        known = {link.key: link for chain in self.chains.values() for link in chain}
        links: dict[str, Link] = {}

        def want(key: str) -> None:
            link = known.get(key)
            if link is None or link.key in links or link.made:
                return
            for other in link.needed:
                want(other)
            links[link.key] = link

        for cell in self.cells:
            if not cell.held:
                want(cell.variant)
        for key in sorted(self.unidentified):
            want(key)
        return list(links.values())

    def needs(self) -> set[str]:
        """Packages that the stages and suites of the spec import: what they make needs them to be loaded again."""
        steps = {link.step.stage for chain in self.chains.values() for link in chain}
        ours = [stage for stage in map(registry.stage, sorted(steps)) if not stage.environment]
        suites = {need for name in self.spec.suites for need in registry.suite(name).needs}
        return suites | {need for stage in ours for need in stage.needs}

    def not_set_up(self) -> list[environments.Environment]:
        """Managed environments that what is left to do needs and this machine has not."""
        named = {registry.stage(link.step.stage).environment for link in self.to_make()}
        named |= {cell.environment for cell in self.cells if not cell.held}
        named |= {c[-1].environment for c in self.chains.values() if c and c[-1].key in self.unidentified}
        found = [environments.find(name) for name in sorted(named - {""})]
        return [each for each in found if not each.ready]

    def open_cells(self) -> list[Cell]:
        """Cells that the store does not answer; variants that share a checkpoint share the work."""
        return list({c.evaluation_key: c for c in self.cells if not c.held}.values())


def make_plan(spec: Spec, store: Store, *, download: bool = True, again: Iterable[str] = ()) -> Plan | None:
    """The plan of a spec against what the store holds; None when a model is on the hub and may not be downloaded.

    `again` names suites that are measured anew although the store holds them. Raises WeighinError, among others for a
    chain whose stages cannot work on what the ones before them make.
    """
    found = base.resolve(spec.base, download=download)
    chains = Chains(spec, found, download=download)
    if found is None or chains.absent:
        return None
    links = chains.links
    cells = _cells(spec, links, found)
    variants = {links[label][-1].key if links[label] else found.key for label in links}
    with store.snapshot() if store.exists() else nullcontext(store) as seen:
        held = seen.held([c.evaluation_key for c in cells])
        known = {key for key in variants if seen.identity(key, machine.machine_key()) is not None}
    fresh = set(again)
    cells = [replace(c, held=None if c.suite in fresh else held.get(c.evaluation_key)) for c in cells]
    served = {key for key in variants if settled((checkpoints.find(key) or found).path)}  # nothing of it can be seen
    return Plan(spec, found, links, tuple(cells), frozenset(variants - known - served), chains.elsewhere)


def job_names(plan: Plan) -> list[str]:
    """The names of the jobs that a plan takes, for the time estimate."""
    making = plan.to_make()
    looked_at = plan.unidentified - {link.key for link in making}  # making a checkpoint looks at it, too
    return [link.step.stage for link in making] + ["identify"] * len(looked_at) + [c.suite for c in plan.open_cells()]


def _cells(spec: Spec, links: Mapping[str, tuple[Link, ...]], root: Checkpoint) -> list[Cell]:
    here = machine.machine_key()
    where = {label: chain[-1].environment if chain else "" for label, chain in links.items()}
    protocols = {
        (name, environment): protocol(name, params, spec, environment)
        for name, params in spec.suites.items()
        for environment in dict.fromkeys(where.values())
    }
    cells: list[Cell] = []
    for label, chain in links.items():
        variant = chain[-1].key if chain else root.key
        for name, params in spec.suites.items():
            stated = protocols[name, where[label]]
            key = keys.evaluation_key(variant, name, stated, here)
            cells.append(Cell(label, name, params, variant, key, stated, None, where[label]))
    return cells


def protocol(name: str, params: Mapping[str, Any], spec: Spec, environment: str = "") -> dict[str, Any]:
    """What must be alike before two results of a suite may be compared: parameters, data, code, versions, dtype.

    In a managed environment the versions are those of its list. They belong to what is measured there, a model in the
    runtime that serves it, and so may differ from ours in a comparison; which environment it was is stated, too.
    """
    plugin = registry.suite(name)
    try:
        data = keys.files_digest(reads(plugin, params))
    except WeighinError as error:
        raise WeighinError(f"suites.{name}: {error}") from None
    file, (loader, scorer) = (
        registry.entry("suite", name).file,
        map(Path(__file__).with_name, ("model.py", "scorer.py")),
    )
    code = [keys.code_digest(file), keys.code_digest(loader)]
    if plugin.alone:
        code += map(keys.own_digest, PROCESS)
    # Another way of scoring changes last bits: only of suites that score.
    how = {"scorer": spec.scorer} if scorer.resolve() in keys.closure(file) else {}
    return {
        "suite": name,
        "params": dict(params),
        "data": data,
        "code": keys.digest(code),
        **_stood_on({*plugin.needs, "torch", "transformers"}, environment),
        "dtype": spec.base.dtype,
        **how,
    }


def _stood_on(needs: set[str], environment: str) -> dict[str, Any]:
    """The versions of some packages where a suite runs, and what they are of where that is not our own environment."""
    if not environment:
        return {"packages": keys.versions(needs)}
    key = environments.find(environment).key
    return {"packages": environments.listed(environment, needs), "environment": {"name": environment, "key": key}}
