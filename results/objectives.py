"""The objectives of a front: one metric of many variants, with the items behind each figure."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from weighin.results.difference import counted, untested
from weighin.results.errors import WeighinError
from weighin.results.lookup import one_metric
from weighin.results.pairs import flat, served_apart, waived
from weighin.results.statistics import Floats
from weighin.results.store import Store

_GROWING = ("s", "B", "J", "token", "request", "W")
"""Units, or units they begin with, whose figures are told apart by their ratio: 2 ms of 4 ms is not 2 ms of 4 s."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """A metric as an objective. `epsilon` is the tolerance within which two figures count as equal, in the metric's
    unit (relative for an `exp_mean` metric such as perplexity, as a gate's margin)."""

    suite: str
    metric: str
    unit: str
    better: str
    reduce: str
    runtime: bool
    epsilon: float = 0.0

    @property
    def name(self) -> str:
        """As the gate writes it."""
        return f"{self.suite}.{self.metric}"

    @property
    def sign(self) -> float:
        """What to multiply by so that less is better."""
        return -1.0 if self.better == "higher" else 1.0

    @property
    def tolerance(self) -> float:
        """`epsilon` on the scale of `plain`."""
        return float(np.log1p(self.epsilon)) if self.reduce == "exp_mean" else self.epsilon

    @property
    def logarithmic(self) -> bool:
        """Whether hypervolume and knee are reckoned on the logarithm of this figure."""
        return self.reduce == "exp_mean" or self.unit.split("/")[0] in _GROWING

    def plain(self, values: Floats) -> Floats:
        """Coordinates in which dominance is judged, less is better; the logarithm of an `exp_mean` metric."""
        return self.sign * (np.log(values) if self.reduce == "exp_mean" else values)

    def scaled(self, coordinates: Floats) -> Floats:
        """Coordinates of `plain` as hypervolume and knee take them; NaN where a figure has no logarithm."""
        if self.reduce == "exp_mean" or not self.logarithmic:
            return coordinates
        figures = self.sign * coordinates
        return self.sign * np.log(np.where(figures > 0, figures, np.nan))


@dataclass(frozen=True)
class Objective:
    """One axis over the variants, the columns.

    `figures` (variant) are the store's values, `low` and `high` (variant) the limits a figure of a whole set brings
    along, NaN without. `values` and `weights` (item, variant) are NaN and 0 where an item was not measured;
    `clusters` (item) counts from 0. `kinds` (variant): two variants of one kind were measured on the same items under
    the same protocol. `method` is how two of them are told apart: `counted`, `shares`, `mean`, or None, for the
    reason in `caveat`.
    """

    axis: Axis
    figures: Floats
    low: Floats
    high: Floats
    values: Floats
    weights: Floats
    clusters: npt.NDArray[np.intp]
    names: tuple[str, ...]
    kinds: npt.NDArray[np.intp]
    method: str | None
    caveat: str | None

    @property
    def clustered(self) -> bool:
        """Whether some cluster holds several items."""
        return len(self.names) < len(self.values)

    def only(self, columns: Sequence[int]) -> "Objective":
        """The same of some variants."""
        at = np.asarray(columns, dtype=np.intp)
        return replace(
            self, figures=self.figures[at], low=self.low[at], high=self.high[at], values=self.values[:, at],
            weights=self.weights[:, at], kinds=self.kinds[at],
        )  # fmt: skip


def axes_of(names: Sequence[str], rows: Sequence[Row], epsilon: Mapping[str, float]) -> tuple[Axis, ...]:
    """The axes that `names`, each SUITE.METRIC, mean among rows of `scores`.

    Raises `WeighinError` for an unknown metric, one that is several, one named twice, one of which neither way is
    better or that is not one quantity in all variants.
    """
    found: list[Axis] = []
    for name in names:
        suite, metric = one_metric(name, rows)
        of_axis = [row for row in rows if (row["suite"], row["metric"]) == (suite, metric)]
        meanings = {(row["unit"], row["better"], row["reduce"], row["runtime"]) for row in of_axis}
        full = f"{suite}.{metric}"
        if any(better == "none" for _, better, *_ in meanings):
            raise WeighinError(f"metric {full}: neither way is better, so it has no front")
        if len(meanings) > 1:
            raise WeighinError(f"metric {full}: its unit, better way or reduction is not the same in all variants")
        if any(full == axis.name for axis in found):
            raise WeighinError(f"metric {full}: is an axis twice; give another")
        unit, better, reduce, runtime = meanings.pop()
        found.append(Axis(suite, metric, unit or "1", better, reduce, runtime, epsilon.get(full, 0.0)))
    return tuple(found)


def read_objective(store: Store, axis: Axis, rows: Sequence[Row], waive: Collection[str] = ()) -> Objective:
    """The items of one axis, a column for each of the rows of `scores`, all of which have a figure.

    Fields of the protocol that `waive` names do not tell kinds apart (see `pairs.pair`).
    """
    ids = [row["evaluation_id"] for row in rows]
    frame = store.query(
        """select evaluation_id, item, cluster, value, weight, low, high from item_values
           where metric = ? and list_contains(?, evaluation_id) and value is not null
           order by item, evaluation_id""",
        [axis.metric, sorted(set(ids))],
    )
    order = {key: column for column, key in enumerate(dict.fromkeys(ids))}
    columns = frame["evaluation_id"].map(order).to_numpy(dtype=np.intp)
    items, named = frame["item"].factorize()
    shape = (len(named), len(order))
    values, weights = np.full(shape, np.nan), np.zeros(shape)
    values[items, columns], weights[items, columns] = frame["value"], frame["weight"]
    # items are numbered as they first appear, and a cluster is that of the first appearance
    clusters, names = frame.drop_duplicates("item")["cluster"].factorize()
    limits = np.full((2, len(order)), np.nan)
    limits[0, columns], limits[1, columns] = frame["low"], frame["high"]
    limits[:, (~np.isnan(values)).sum(axis=0) != 1] = np.nan  # limits of a whole set come with its one figure
    at = [order[key] for key in ids]
    kinds = _kinds(_protocols(store, ids, axis, waive), values, weights)
    figures = np.array([row["value"] for row in rows], dtype=np.float64)
    made = Objective(
        axis, figures, limits[0, at], limits[1, at], values[:, at], weights[:, at],
        np.asarray(clusters, dtype=np.intp), tuple(map(str, names)), kinds[at], None, None,
    )  # fmt: skip
    return _with_method(made, rows)


def _protocols(store: Store, ids: Sequence[str], axis: Axis, waive: Collection[str]) -> list[str]:
    """What must be alike for a comparison, as text, one an evaluation."""
    found = store.rows(
        "select evaluation_id, protocol, machine_key from evaluations where list_contains(?, evaluation_id)",
        [sorted(set(ids))],
    )
    texts, let = {}, {*waive, *served_apart(row["protocol"] for row in found)}
    for row in found:
        fields = {name: value for name, value in flat(row["protocol"]).items() if not waived(name, let)}
        if axis.runtime and not waived("machine", waive):
            fields["machine"] = row["machine_key"]
        texts[row["evaluation_id"]] = json.dumps(fields, sort_keys=True)
    return [texts.get(key, key) for key in dict.fromkeys(ids)]


def _kinds(protocols: Sequence[str], values: Floats, weights: Floats) -> npt.NDArray[np.intp]:
    """A number for each column; equal where protocol, scored items and their weights are."""
    known: dict[tuple[str, bytes, bytes], int] = {}
    scored = ~np.isnan(values)
    marks = [(text, scored[:, i].tobytes(), weights[:, i].tobytes()) for i, text in enumerate(protocols)]
    return np.array([known.setdefault(mark, len(known)) for mark in marks], dtype=np.intp)


def _with_method(found: Objective, rows: Sequence[Row]) -> Objective:
    """With how two of its variants are told apart, or why they are not."""
    scored = ~np.isnan(found.values)
    most = int(scored.sum(axis=0).max(initial=0))
    if most <= 1 and all(counted(row, row["n"]) for row in rows):
        return replace(found, method="counted")
    plain = (found.axis.reduce, found.axis.unit) == ("mean", "1") and bool((found.weights[scored] == 1).all())
    shares = plain and bool(np.isin(found.values[scored], (0, 1)).all())
    for row in rows:
        if why := untested(row, n=most, clusters=len(found.names), shares=shares):
            return replace(found, caveat=why)
    return replace(found, method="shares" if shares else "mean")
