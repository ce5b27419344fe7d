"""The `gate:` of a spec: rules, and at how many items they are looked at."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from weighin.harness import registry
from weighin.results.errors import WeighinError
from weighin.results.rules import Rule


class RuleText(BaseModel):
    """A rule as it stands in the file; `results.rules.Rule` says what it means."""

    model_config = ConfigDict(extra="forbid")

    metric: str
    variant: str
    against: str = "base"
    margin: float | str = 0.0
    limit: float | None = None
    role: Literal["gate", "watch"] = "gate"


class GateText(BaseModel):
    """Rules, and growing numbers of items at which they are judged until all are decided (empty: once)."""

    model_config = ConfigDict(extra="forbid")

    rules: list[RuleText] = []
    looks: list[Annotated[int, Field(gt=0)]] = []

    @field_validator("looks")
    @classmethod
    def _growing(cls, looks: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(looks)):
            raise ValueError("looks must grow, as in [300, 600, 1200]")
        return looks


def checked_rules(
    gate: GateText, chains: Mapping[str, Any], suites: Mapping[str, Any], faults: list[str]
) -> Iterator[Rule]:
    """The rules whose variants and suites exist; faults are appended, not raised."""
    for index, rule in enumerate(gate.rules):
        where, before = f"gate[{index}]", len(faults)
        named = (
            (("variant", rule.variant),)
            if rule.limit is not None
            else (("variant", rule.variant), ("against", rule.against))
        )
        for field, label in named:
            if label not in chains:
                faults.append(f"{where}.{field}: no variant {label!r}. {registry.suggest(label, chains)}")
        suite = rule.metric.split(".", 1)[0]
        if suite not in suites:
            faults.append(f"{where}.metric: no suite {suite!r} in this spec. {registry.suggest(suite, suites)}")
        try:
            checked = Rule(**rule.model_dump())
        except WeighinError as error:
            faults.append(f"{where}: {error}")
            continue
        if len(faults) == before:
            yield checked
