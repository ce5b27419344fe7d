"""Further builds of a spec's variants: the same recipes with other seeds."""

import dataclasses
import hashlib
from collections.abc import Iterator

from weighin.harness.plan import Plan, make_plan
from weighin.harness.spec import Spec, Step
from weighin.results.errors import WeighinError
from weighin.results.store import Store


def plans(first: Plan, store: Store, replicates: int) -> list[Plan]:
    """What the builds beyond the first make and measure: variants with a seeded stage in their chain, and only those.

    Raises WeighinError where replicates are asked for and no chain has one.
    """
    found = [_plan(first, store, build) for build in range(1, replicates)]
    if found and not found[0].chains:
        raise WeighinError("--replicates: no stage of this spec has a seed: each build would be the same")
    return found


def _plan(first: Plan, store: Store, build: int) -> Plan:
    whole = make_plan(reseeded(first.spec, build), store)
    assert whole is not None, "the first build's plan has fetched what is needed"
    chains = {label: chain for label, chain in whole.chains.items() if whole.variant(label) != first.variant(label)}
    new = {whole.variant(label) for label in chains}
    cells = tuple(cell for cell in whole.cells if cell.label in chains)
    return dataclasses.replace(whole, chains=chains, cells=cells, unidentified=whole.unidentified & new)


def reseeded(spec: Spec, build: int) -> Spec:
    """The spec with every stage's seed replaced by one drawn from it and the build's number."""
    chains = {label: tuple(_moved(steps, build)) for label, steps in spec.chains.items()}
    return dataclasses.replace(spec, chains=chains)


def _moved(steps: tuple[Step, ...], build: int) -> Iterator[Step]:
    for step in steps:
        seed = step.params.get("seed")
        drawn = hashlib.sha256(f"{seed}:{build}".encode()).digest()
        moved = {**step.params, "seed": int.from_bytes(drawn[:4]) >> 1}  # 31 bits: what every library takes
        yield step if seed is None else dataclasses.replace(step, params=moved)
