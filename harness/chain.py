"""Chains of stages with their keys, and whether each stage can work on what the ones before it make."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weighin.harness import base, checkpoints, environments, keys, registry
from weighin.harness.endpoint import Endpoint, settle
from weighin.harness.outline import Outline, read, unserved
from weighin.harness.plugin import Checkpoint, Stage, Suite
from weighin.harness.spec import Base, Spec, SpecError, Step
from weighin.results.errors import WeighinError


@dataclass(frozen=True)
class Link:
    """One step of a chain with its key: a checkpoint that exists or will."""

    key: str
    parent: str
    root: str
    depth: int
    step: Step
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys of the checkpoints that its parameters name."""
    environment: str = ""
    """The managed environment in which its checkpoint is opened; empty: ours."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Keys of the checkpoints that it is made from: its parent's and its others'."""
        return (self.parent, *(key for several in self.others.values() for key in several))

    @property
    def made(self) -> bool:
        """Whether its checkpoint is on disk, or where machines share theirs."""
        return bool(checkpoints.known(self.key))


@dataclass(frozen=True)
class _Known:
    """What a name in a spec stands for."""

    key: str
    outline: Outline


class Chains:
    """Every chain of a spec, followed from the base on.

    Raises SpecError with a line for each stage that cannot work where it stands.
    """

    def __init__(self, spec: Spec, root: Checkpoint | None, *, download: bool) -> None:
        self.download = download
        self.elsewhere: dict[str, Checkpoint] = {}
        """Models that parameters name, by key."""
        self.links: dict[str, tuple[Link, ...]] = {}
        """Each label's steps from the base on."""
        self.absent = root is None
        """Whether a model is not on this machine, so that keys mean nothing yet."""
        self._folders = {root.key: root.path} if root else {}
        """Where the models are that chains begin with, by key."""
        start = _Known(root.key, read(root.path)) if root else _Known("", Outline())
        self._known: dict[str, _Known] = {"base": start}
        faults: dict[str, None] = {}
        for label, steps in spec.chains.items():
            self.links[label] = self._follow(label, steps, spec.roots.get(label, "base"), faults)
        if faults:
            raise SpecError("\n".join(faults))

    def _follow(self, label: str, steps: Iterable[Step], root: str, faults: dict[str, None]) -> tuple[Link, ...]:
        links: list[Link] = []
        try:
            at = origin = self._find(root)
        except WeighinError as error:
            faults[f"variants.{label}[0].from: {error}"] = None
            return ()
        for step in steps:
            try:
                link, seen = self._link(step, at, origin.key, len(links) + 1)
            except WeighinError as error:
                faults[f"{step.where}: {error}"] = None
                break
            links.append(link)
            at = _Known(link.key, seen)
        self._known[label] = at
        return tuple(links)

    def _link(self, step: Step, parent: _Known, root: str, depth: int) -> tuple[Link, Outline]:
        if step.stage == registry.SERVED:
            return self._served(step, parent, root, depth)
        plugin = registry.stage(step.stage)
        named = {name: _several(step.params[name]) for name in plugin.references if step.params[name] is not None}
        others = {name: tuple(self._find(each) for each in names) for name, names in named.items()}
        seen = _foresee(step, plugin, parent.outline, others)
        found = {name: tuple(known.key for known in several) for name, several in others.items()}
        code = keys.code_digest(registry.entry("stage", step.stage).file)
        data = keys.files_digest(reads(plugin, step.params))
        params = {**step.params, **found}  # a label is a name for a checkpoint, and only the checkpoint counts
        key = keys.step_key(parent.key, step.stage, params, code, data, environments.step_versions(step.stage, plugin))
        opened = registry.stage(seen.runtime).environment if seen.runtime else ""
        return Link(key, parent.key, root, depth, step, found, opened), seen

    def _served(self, step: Step, parent: _Known, root: str, depth: int) -> tuple[Link, Outline]:
        """The server that is said to serve the parent; its tokens are those of the chain's root, or a model's."""
        named = step.params["tokenizer"]
        folder = self._folders.get(root) if named is None else base.tokenizer(named, self.download)
        if folder is None:  # everything is to be done after the download
            self.absent = True
            return Link("", parent.key, root, depth, step), parent.outline
        given = {("endpoint" if name == "url" else name): value for name, value in step.params.items()}
        found = settle(Endpoint(**given), folder)
        return Link(found.key, parent.key, root, depth, step), parent.outline.but(served=step.stage)

    def _find(self, name: str) -> _Known:
        """What a parameter names: a label of the spec, or else a model."""
        if name not in self._known:
            found = base.resolve(Base(model=name), download=self.download)
            if found is None:
                self.absent = True
                return _Known("", Outline())
            self.elsewhere[found.key] = found
            self._folders[found.key] = found.path
            self._known[name] = _Known(found.key, read(found.path))
        return self._known[name]


def reads(plugin: Stage[...] | Suite[...], params: Mapping[str, Any]) -> list[Path]:
    """The files whose content enters a plugin's key."""
    return list(plugin.reads(params)) if plugin.reads else []


def _foresee(step: Step, plugin: Stage[...], parent: Outline, others: Mapping[str, tuple[_Known, ...]]) -> Outline:
    shown = {name: [known.outline for known in several] for name, several in others.items()}
    params = {
        **step.params,
        **{name: several if isinstance(step.params[name], list) else several[0] for name, several in shown.items()},
    }
    if plugin.changes == "serving":
        return (plugin.foresee(parent, params) if plugin.foresee else parent).but(served=step.stage)
    made = plugin.foresee(parent, params) if plugin.foresee else parent
    if not plugin.foresee:
        unserved(step.stage, parent)
    return made.but(runtime=step.stage) if plugin.opens else made


def _several(value: Any) -> list[str]:
    return list(value) if isinstance(value, list) else [value]
