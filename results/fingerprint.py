"""What a number stands on, field by field: weights, data, code, package versions, driver, machine. And what changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighin.results.pairs import flat
from weighin.results.store import Store

Fingerprint = Mapping[str, str]
"""Dotted names of fields, with their values as text."""

HARDWARE = ("cpu", "cores", "ram_gib", "system", "machine")
"""Facts of a machine that make its class, beside the names of its accelerators."""
ABSENT = "absent"


@dataclass(frozen=True)
class Change:
    """A field that differs: its values in the older and in the newer run, and the first run that had the newer one."""

    field: str
    old: str
    new: str
    since: str | None = None

    def __str__(self) -> str:
        since = f" (since run {self.since})" if self.since else ""
        return f"{self.field}: {_short(self.old)} -> {_short(self.new)}{since}"


def classmates(store: Store, machine_key: str) -> list[str]:
    """Keys of the machines of the same class, itself among them: the same hardware, with any driver and Python."""
    rows = store.rows("select machine_key, facts from machines")
    mine = next((_hardware(row["facts"]) for row in rows if row["machine_key"] == machine_key), None)
    return [row["machine_key"] for row in rows if _hardware(row["facts"]) == mine] or [machine_key]


def _hardware(facts: Mapping[str, Any]) -> list[Any]:
    return [facts.get(name) for name in HARDWARE] + [_gpu(facts)[0]]


def _gpu(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Names and drivers of the accelerators; a line of the facts is `name, driver`."""
    lines = [line.rpartition(",") for line in str(facts.get("gpu") or "").splitlines()]
    names, drivers = ([(part[0] or part[2]).strip() for part in lines], [part[2].strip() for part in lines if part[0]])
    return "; ".join(names) or ABSENT, "; ".join(drivers) or ABSENT


def fingerprints(store: Store, places: Sequence[tuple[str, str | None]]) -> list[Fingerprint]:
    """The fingerprint of each `(run, evaluation)`, in this order; where there is no evaluation, of the run alone."""
    runs = {
        row["run_id"]: row
        for row in store.rows(
            """select run_id, packages, git_sha, facts from runs left join machines using (machine_key)
               where list_contains(?, run_id)""",
            [[run for run, _ in places]],
        )
    }
    cells = {
        row["evaluation_id"]: row
        for row in store.rows(
            "select evaluation_id, variant_key, protocol from evaluations where list_contains(?, evaluation_id)",
            [[evaluation for _, evaluation in places if evaluation]],
        )
    }
    weights = {row["variant_key"]: _weights(store, row["variant_key"]) for row in cells.values()}
    found: list[Fingerprint] = []
    for run, evaluation in places:
        cell = cells.get(evaluation or "")
        mine = {} if cell is None else weights[cell["variant_key"]] | _protocol(cell["protocol"])
        found.append(mine | _of_run(runs[run]))
    return found


def _protocol(protocol: Mapping[str, Any]) -> dict[str, str]:
    return flat({"protocol": protocol}) if protocol else {}


def _of_run(run: Mapping[str, Any]) -> dict[str, str]:
    facts = dict(run["facts"] or {})
    name, driver = _gpu(facts)
    machine = {f"machine.{key}": str(value) for key, value in facts.items() if key != "gpu"}
    packages = {f"packages.{key}": str(value) for key, value in (run["packages"] or {}).items()}
    return {**packages, **machine, "machine.gpu": name, "driver": driver, "commit": str(run["git_sha"] or ABSENT)}


def _weights(store: Store, key: str) -> dict[str, str]:
    """The checkpoint's key, and each step of its chain, so that the step that changed has a name."""
    found, at = {"weights": key}, store.variant(key)
    while at is not None:
        place = f"weights.{at.depth}.{at.stage or 'base'}"
        found |= {f"{place}.{name}": json.dumps(value, sort_keys=True) for name, value in dict(at.params).items()}
        if at.stage is None:
            found[place] = at.variant_key
        at = store.variant(at.parent_key) if at.parent_key else None
    return found


def changed(old: Fingerprint, new: Fingerprint) -> list[Change]:
    """The fields that differ, by name."""
    names = sorted(old.keys() | new.keys())
    pairs = [(name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in names]
    return [Change(name, a, b) for name, a, b in pairs if a != b]


def bisect(runs: Sequence[str], prints: Sequence[Fingerprint]) -> list[Change]:
    """What changed from the first of `runs` (green) to the last (red), each with the first run that had the new value
    and kept it. Both lists are in the order of time and equally long, two or more."""
    found = []
    for each in changed(prints[0], prints[-1]):
        since = len(runs) - 1
        while since > 1 and prints[since - 1].get(each.field, ABSENT) == each.new:
            since -= 1
        found.append(Change(each.field, each.old, each.new, runs[since]))
    return found


def _short(value: str) -> str:
    text = value.strip('"')
    return text[:12] if len(text) == 64 and all(c in "0123456789abcdef" for c in text) else text[:60]
