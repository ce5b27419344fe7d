"""A rule of the gate: what must hold of one variant's metric before it may be released."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weighin.results.errors import WeighinError
from weighin.results.lookup import split_metric

Role = Literal["gate", "watch"]


@dataclass(frozen=True)
class Rule:
    """`variant` must not be worse than `against` by `margin` or more in `metric`, written SUITE.METRIC.

    A margin is in the metric's unit (0.02 is 2 points of accuracy) or a share of `against`'s value ("5%"); for an
    `exp_mean` metric such as perplexity 0.02 means 2 % as well, tested on the log scale. A metric that compares with
    the parent or the root already (a ratio of latencies taken in turns, a divergence) is held against its value where
    nothing changed. With a `limit` the rule is about the variant alone: its value must be shown to be within the limit,
    below or above as the metric has it. A `watch` rule is judged alike but releases nothing.
    """

    metric: str
    variant: str
    against: str = "base"
    margin: float | str = 0.0
    limit: float | None = None
    role: Role = "gate"

    def __post_init__(self) -> None:
        split_metric(self.metric)
        if not (math.isfinite(self.size) and self.size >= 0):
            raise WeighinError(
                f"gate {self.metric}: margin must be a number >= 0 or a share such as 5% ({self.margin})"
            )
        if self.limit is not None and (self.size or not math.isfinite(self.limit)):
            raise WeighinError(f"gate {self.metric}: a limit is a number and takes no margin (got {self.limit})")
        if self.limit is None and self.variant == self.against:
            raise WeighinError(
                f"gate {self.metric}: {self.variant} is judged against itself; name another in `against`"
            )
        if self.role not in ("gate", "watch"):
            raise WeighinError(f"gate {self.metric}: role must be gate or watch (got {self.role!r})")

    @property
    def share(self) -> bool:
        """Whether the margin is a share of the other's value."""
        return isinstance(self.margin, str)

    @property
    def size(self) -> float:
        """The margin as a number; NaN where it is none."""
        if not isinstance(self.margin, str):
            return self.margin
        number, sign, rest = self.margin.strip().partition("%")
        try:
            return float(number) / 100 if sign and not rest else math.nan
        except ValueError:
            return math.nan

    @property
    def sides(self) -> tuple[str, ...]:
        """The variants that it speaks of, the judged one last."""
        return (self.variant,) if self.limit is not None else (self.against, self.variant)

    def __str__(self) -> str:
        if self.limit is not None:
            return f"{self.variant}, limit {self.limit:g}"
        margin = self.margin if self.share else f"{self.size:g}"
        return f"{self.variant} against {self.against}, margin {margin}"


def rules_of(spec: Mapping[str, Any]) -> tuple[list[Rule], list[int]]:
    """The gate rules and looks of a run's kept spec. Raises WeighinError where this release cannot read them."""
    gate = spec.get("gate") or []
    rules, looks = (gate.get("rules", []), gate.get("looks", [])) if isinstance(gate, Mapping) else (gate, [])
    try:
        return [Rule(**rule) for rule in rules], list(looks)
    except (TypeError, AttributeError) as error:
        raise WeighinError("the spec of this run has gate rules that this Weighin cannot read") from error
