"""The records that are kept: what a suite yields and what the store holds about it. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower", "none"]
"""Which way is better; `none` describes the model and ranks nothing."""

Reduce = Literal["mean", "exp_mean", "median", "sum", "max"]
"""How samples become one value: weighted mean, exp of the weighted mean (perplexity), median, sum, maximum."""

Source = Literal["measured", "counter", "modelled", "imported"]
"""`counter`: read from a hardware counter. `modelled`: derived from an assumption such as a TDP. `imported`: measured
by another tool, taken over from its file."""

Kin = Literal["parent", "root"]
"""A relative of a variant: the checkpoint it was made of, or the base at the start of its chain."""

Status = Literal["ok", "abstained", "failed"]


@dataclass(frozen=True)
class Metric:
    """What a number means.

    `runtime` marks a figure of the runtime rather than of the weights (latency, resident memory, energy): where
    the runtime only simulates a format, such a figure says nothing about it and enters no front and no gate.
    `signed` marks a mean that may lie below 0 (a drop, a gap), even where all its values happen to be 0 and 1.
    `beside` names the relative that the figure compares with within its own evaluation (a ratio of latencies taken in
    turns, a divergence), and `neutral` is its value where nothing changed.

    The first metric that a suite names leads: it stands for the suite where there is room for one.
    """

    name: str
    unit: str
    better: Better = "higher"
    reduce: Reduce = "mean"
    runtime: bool = False
    signed: bool = False
    beside: Kin | None = None
    neutral: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One number for one item.

    `item` is a content hash or a stable name: samples of two variants are joined by it, never by position.
    `metric` may be left out where the suite declares just one. `cluster` groups items that are not independent (a
    shared passage); without it each item stands alone. `weight` is what a weighted mean weighs by (tokens, bytes).
    A `value` of None was not measured, and `reason` says why; it is never 0.

    A figure of a whole set (an AUROC, a p99) is one sample that brings the limits of its 95 % interval, `low` and
    `high`; its `weight` is then the number of items behind it.
    """

    item: str
    value: float | None
    metric: Metric | None = None
    weight: float = 1.0
    cluster: str | None = None
    rep: int = 0
    source: Source = "measured"
    reason: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
