"""Objectives made of arrays, for tests of what is reckoned on them without a store."""

from typing import Any

import numpy as np

from weighin.results.objectives import Axis, Objective

SHARES = Axis("s", "acc", "1", "higher", "mean", False)
MEAN = Axis("s", "loss", "nat", "lower", "mean", False)
BYTES = Axis("memory", "disk", "B", "lower", "mean", False)


def objective(axis: Axis, values: Any, clusters: Any = None, method: str | None = "mean") -> Objective:
    """Complete `values` (item, variant) of equal weight; without `clusters` each item is its own."""
    made = np.asarray(values, dtype=np.float64)
    items, variants = made.shape
    named = [str(c) for c in (range(items) if clusters is None else clusters)]
    order = {name: place for place, name in enumerate(dict.fromkeys(named))}
    none = np.full(variants, np.nan)
    figures = {"mean": made.mean, "exp_mean": lambda axis: np.exp(made.mean(axis)), "max": made.max,
               "median": lambda axis: np.median(made, axis), "sum": made.sum}[axis.reduce]  # fmt: skip
    return Objective(
        axis, figures(axis=0), none, none, made, np.ones_like(made), np.array([order[name] for name in named]),
        tuple(order), np.zeros(variants, dtype=np.intp), method, None if method else "not interleaved",
    )  # fmt: skip


def counted(sizes: Any) -> Objective:
    """Bytes on disk, one figure a variant."""
    return objective(BYTES, [sizes], method="counted")


def points(objectives: list[Objective]) -> np.ndarray:
    """Figures (variant, objective), less is better."""
    return np.column_stack([o.axis.plain(o.figures) for o in objectives])
