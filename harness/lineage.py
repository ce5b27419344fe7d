"""Where variants come from, as trees: what each stage cost to make, and what it changed. Plain text in a pipe."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from weighin.harness.registry import entries
from weighin.results.errors import WeighinError
from weighin.results.lookup import side
from weighin.results.render import quantity
from weighin.results.store import Store

Row = Mapping[str, Any]


class Lineage:
    """The checkpoints of a store, what they turned out to be, and their names in a run."""

    def __init__(self, store: Store, run: str) -> None:
        self.rows: dict[str, Row] = {row["variant_key"]: row for row in store.rows("select * from variants")}
        # Of a checkpoint that was looked at on several machines, what it is on the run's own.
        looked = store.rows(
            """select i.* from identities i, runs r where r.run_id = ?
               order by i.machine_key = r.machine_key""",
            [run],
        )
        self.identities: dict[str, Row] = {row["variant_key"]: row for row in looked}
        self.labels: dict[str, list[str]] = {}
        named = "select label as variant, variant_key from labels where run_id = ? order by position"
        for card in store.rows(named, [run]):
            self.labels.setdefault(card["variant_key"], []).append(card["variant"])

    def chain(self, key: str) -> list[str]:
        """A checkpoint's ancestors from its base on, itself last."""
        found: list[str] = []
        at: str | None = key
        while at in self.rows:
            found.insert(0, at)
            at = self.rows[at]["parent_key"]
        return found

    def name(self, key: str) -> str:
        """The labels of a checkpoint; else the beginning of its key."""
        return ", ".join(self.labels.get(key, [])) or key[:12]


def run_tree(console: Console, store: Store, run: str) -> None:
    """The variants of a run from the base on, two lines each."""
    known = Lineage(store, run)
    trees: dict[str, Tree] = {}
    for key in known.labels:
        for at in known.chain(key):
            if at not in trees:
                parent = trees.get(known.rows[at]["parent_key"])
                said = f"{_title(known, at)}{_dim(_facts(known.identities.get(at)))}"
                trees[at] = parent.add(said) if parent else Tree(said)
    for key, tree in trees.items():
        if known.rows[key]["parent_key"] not in trees:
            console.print(tree)


def variant_tree(console: Console, store: Store, name: str) -> None:
    """One variant's lineage, by label of the latest run, RUN/LABEL or key. Raises WeighinError."""
    if not store.exists():
        plugins = ", ".join([*entries("stage"), *entries("suite")])
        raise WeighinError(
            f"nothing is called {name!r}: no stage or suite, and there is no store yet. There are: {plugins}"
        )
    found = side(store, name)
    run = found.run_id or store.latest_run()
    if found.variant_key is None or run is None:
        raise WeighinError(f"{name}: was not made; a stage of its chain failed")
    known = Lineage(store, run)
    tree: Tree | None = None
    at = Tree("")
    for key in known.chain(found.variant_key):
        row = known.rows[key]
        before = known.identities.get(row["parent_key"] or "")
        lines = [*_costs(row), *_changes(before, known.identities.get(key))]
        said = _title(known, key) + "".join(_dim(line) for line in lines)
        at = at.add(said) if tree else Tree(said)
        tree = tree or at
        for parameter, keys in row["others"].items():
            given = row["params"][parameter]
            for other, name_given in zip(keys, given if isinstance(given, list) else [given], strict=True):
                shown = known.name(other) if other in known.labels else name_given
                at.add(f"[dim]{escape(parameter)}:[/] {escape(shown)}")
    console.print(tree)


def _title(known: Lineage, key: str) -> str:
    row = known.rows[key]
    if row["stage"] is None:
        return f"[bold]{escape(known.name(key))}[/]  {escape(str(row['params'].get('model', 'base')))}"
    given = ", ".join(f"{name} {_value(value)}" for name, value in row["params"].items() if value not in (None, "", []))
    title = f"[bold]{escape(known.name(key))}[/]  {escape(row['stage'])}"
    return f"{title} [dim]({escape(given)})[/]" if given else title


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _dim(line: str) -> str:
    return f"\n[dim]{escape(line)}[/]" if line else ""


def _facts(identity: Row | None) -> str:
    if identity is None:
        return ""
    apart = "" if identity["distance"] is None else f", {identity['distance']:.2g} from its parent"
    facts = f"{quantity(identity['disk_bytes'], 'B')} on disk, {quantity(identity['memory_bytes'], 'B')} resident"
    return f"{identity['form']}, {facts}{apart}; {identity['kernel']}"


def _costs(row: Row) -> Iterator[str]:
    if told := row["params"].get("origin") if row["stage"] is None else None:
        yield f"imported from {told['tool']} {told['version']}"
    if row["stage"] is None:
        return
    joules = quantity(row["made_joules"], "J")
    source = f" {row['made_joules_source']}" if row["made_joules_source"] else " (no energy meter)"
    yield (
        f"cost     {quantity(row['made_seconds'], 's')}, {joules}{source}, peak {quantity(row['made_peak_bytes'], 'B')}"
    )


def _changes(before: Row | None, after: Row | None) -> Iterator[str]:
    """What a checkpoint is, where that differs from its parent: all of it for a base."""
    if after is None:
        yield "nothing is known of it on this machine"
        return
    for name, show in SHOWN.items():
        new = show(after)
        old = show(before) if before is not None else None
        if new and old != new:
            yield f"{name:<9}{old} → {new}" if old else f"{name:<9}{new}"
    if after["distance"] is not None:
        yield f"distance {after['distance']:.3g} from its parent"
    elif before is not None:
        yield f"distance unknown: {after['distance_reason']}"


def _serving(identity: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity["serving"].items())


SHOWN: dict[str, Any] = {
    "weights": lambda row: f"{row['parameters']:,} parameters",
    "on disk": lambda row: quantity(row["disk_bytes"], "B"),
    "resident": lambda row: quantity(row["memory_bytes"], "B"),
    "zeros": lambda row: f"{row['sparsity'] * 100:.1f} %",
    "dtypes": lambda row: ", ".join(f"{dtype} {count:,}" for dtype, count in row["dtypes"].items()),
    "form": lambda row: row["form"],
    "kernel": lambda row: row["kernel"],
    "served": _serving,
    "loads": lambda row: f"with {row['loader']}" if row["loader"] else "",
}
"""What `weighin show VARIANT` says of a checkpoint."""
