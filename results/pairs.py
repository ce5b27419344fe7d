"""The samples of two evaluations of one metric, joined by item; unlike protocols and unmatched items are refused."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weighin.results.outside import table
from weighin.results.statistics import Floats
from weighin.results.store import Store

Row = dict[str, Any]

UNMATCHED = "unmatched"
"""What to waive so that items measured on one side only are left out."""
SERVING = ("torch", "transformers", "datasets", "tqdm")
"""Packages that a deployed model runs on, or that only fetch items (which are joined by their content) and draw bars.
All others that a suite states decide what is scored, and how: lm-eval, ragas, scikit-learn."""


@dataclass(frozen=True)
class Refusal:
    """Why two evaluations were not compared; `fields` names what to waive."""

    suite: str
    metric: str
    reason: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Items measured on both sides; `score_a` and `score_b` are the metric's rows of the view `evaluation_scores`.

    `waived` names what differs and was allowed to.
    """

    suite: str
    metric: str
    a: Floats
    b: Floats
    weights: Floats
    clusters: list[str]
    unmatched: int
    score_a: Mapping[str, Any]
    score_b: Mapping[str, Any]
    waived: tuple[str, ...] = ()

    @property
    def clustered(self) -> bool:
        return len(set(self.clusters)) < len(self.clusters)


def pair(store: Store, suite: str, metric: str, ids: tuple[str, str], waive: Collection[str] = ()) -> Pairs | Refusal:
    """Join one metric of two evaluations by item, repetitions averaged; weights and clusters are the first one's.

    Refused unless waived: fields of the protocol that differ (nested ones by their dotted name; waiving `task`
    waives `task.version`), the machine for a runtime metric, the metric's definition, weights, unmatched items. Where
    one side was imported, or the sides come from different tools, that is the field `origin`, and stands as well for
    all that only one of them states: what both state must still be alike. Packages that serve a model in an
    environment of its own are not refused (see `served_apart`). The requests of two runs are not the same items,
    however they are called: times need not match, and carry no verdict (`difference.NOT_INTERLEAVED`).
    """
    return pair_all(store, suite, [metric], ids, waive)[0]


def pair_all(
    store: Store, suite: str, metrics: Sequence[str], ids: tuple[str, str], waive: Collection[str] = ()
) -> list[Pairs | Refusal]:
    """`pair` for several metrics of two evaluations, by two queries for all of them."""
    scores, rows = _scores(store, metrics, ids), _joined(store, metrics, ids)
    return [_paired((suite, name), scores[name], rows[name], waive) for name in metrics]


def _paired(named: tuple[str, str], scores: list[Row], rows: list[Row], waive: Collection[str]) -> Pairs | Refusal:
    suite, metric = named
    if len(scores) < 2:
        return Refusal(suite, metric, "only one of the two has this metric")
    if without := _without(scores):
        return Refusal(suite, metric, without)
    unlike = _unlike(*scores)
    both = [row for row in rows if row["a"] is not None and row["b"] is not None]
    timed = bool(scores[0]["runtime"] and scores[1]["runtime"])
    if not timed and any(row["weight_a"] != row["weight_b"] for row in both):
        unlike.append("weights")
    refused = tuple(name for name in unlike if not waived(name, waive))
    if refused:
        return Refusal(suite, metric, f"the protocols differ in {', '.join(refused)}", refused)
    unmatched = sum((row["a"] is None) != (row["b"] is None) for row in rows)
    if unmatched and not timed and UNMATCHED not in waive:
        reason = f"{unmatched} of {len(rows)} items were measured on one side only"
        return Refusal(suite, metric, reason, (UNMATCHED,))
    if not both and not timed:
        return Refusal(suite, metric, "no item was measured on both sides")
    a, b, weights = (np.array([row[k] for row in both], dtype=np.float64) for k in ("a", "b", "weight_a"))
    clusters = [row["cluster"] for row in both]
    let = (*unlike, UNMATCHED) if unmatched and not timed else tuple(unlike)
    return Pairs(suite, metric, a, b, weights, clusters, unmatched, scores[0], scores[1], let)


def _scores(store: Store, metrics: Sequence[str], ids: tuple[str, str]) -> dict[str, list[Row]]:
    """Each metric's score of either evaluation, with what it was measured on and under which protocol."""
    rows = store.rows(
        """select s.*, i.form, e.protocol, e.machine_key
           from evaluation_scores s join evaluations e using (evaluation_id)
           left join identities i on i.variant_key = e.variant_key and i.machine_key = e.machine_key
           where list_contains(?, s.metric) and s.evaluation_id in (?, ?)""",
        [list(metrics), *ids],
    )
    found = {(row["metric"], row["evaluation_id"]): row for row in rows}
    return {name: [found[name, key] for key in ids if (name, key) in found] for name in metrics}


def _without(scores: list[Row]) -> str | None:
    """Why there is nothing to compare, where a side has no value."""
    reasons = [None if score["value"] is not None else str(score["reason"] or "not measured") for score in scores]
    if all(reasons) and len(set(reasons)) == 1:
        return f"neither has a value: {reasons[0]}"
    told = [f"the {which} has no value: {why}" for which, why in zip(("first", "second"), reasons, strict=True) if why]
    return "; ".join(told) or None


def _joined(store: Store, metrics: Sequence[str], ids: tuple[str, str]) -> dict[str, list[Row]]:
    rows = store.rows(
        """with a as (select * from item_values where evaluation_id = $a and list_contains($metrics, metric)),
                b as (select * from item_values where evaluation_id = $b and list_contains($metrics, metric))
           select metric, item, coalesce(a.cluster, b.cluster) as cluster, a.value as a, b.value as b,
               a.weight as weight_a, b.weight as weight_b
           from a full join b using (metric, item) order by metric, item""",
        {"a": ids[0], "b": ids[1], "metrics": list(metrics)},
    )
    found: dict[str, list[Row]] = {name: [] for name in metrics}
    for row in rows:
        found[row["metric"]].append(row)
    return found


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    a, b = flat(_stated(first)), flat(_stated(second))
    tools = [table(row["protocol"].get("origin")).get("tool") for row in (first, second)]
    if tools[0] == tools[1]:
        theirs = served_apart([first["protocol"], second["protocol"]])
        unlike = sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n) and not waived(n, theirs))
    else:
        unlike = ["origin", *sorted(name for name in a.keys() & b.keys() if a[name] != b[name])]
    if first["runtime"] and first["machine_key"] != second["machine_key"] and "machine" not in unlike:
        unlike.append("machine")
    return unlike + [f"metric.{name}" for name in ("unit", "better", "reduce") if first[name] != second[name]]


def _stated(score: Mapping[str, Any]) -> dict[str, Any]:
    """A score's protocol; what it says of each task, only for the task of this metric."""
    protocol = dict(score["protocol"])
    tasks = table(protocol.pop("tasks", None))
    mine = [task for task in tasks if score["metric"] == task or score["metric"].startswith(f"{task}/")]
    return {**protocol, "task": tasks[max(mine, key=len)]} if mine else protocol


def served_apart(protocols: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Fields that belong to what is measured, and not to how: the packages that serve it, where not all were measured
    in one environment. A deployed variant is a model in the runtime that serves it, and is compared as such; what
    scores it must be of one version on both sides.
    """
    environments = {json.dumps(protocol.get("environment"), sort_keys=True) for protocol in protocols}
    return ("environment", *(f"packages.{name}" for name in SERVING)) if len(environments) > 1 else ()


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested JSON objects as dotted names, so that a difference can be named; leaves as JSON text."""
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value, sort_keys=True)} if prefix else {}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def waived(name: str, waive: Collection[str]) -> bool:
    """Whether a field, or one it is part of, is among those to waive."""
    return any(name == given or name.startswith(given + ".") for given in waive)
