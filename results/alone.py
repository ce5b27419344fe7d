"""One variant's metric held against a number: a limit, or a comparing metric's value where nothing changed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from weighin.results.difference import Comparison, unreal
from weighin.results.pairs import Refusal
from weighin.results.statistics import MIN_CLUSTERS, Floats, clopper_pearson, clustered_mean, design_effect
from weighin.results.store import Store


def hold(
    store: Store, metric: tuple[str, str], evaluation_id: str, reference: float, level: float = 0.95
) -> Comparison | Refusal:
    """How far a metric `(suite, name)` of one evaluation is on the worse side of `reference`, with its limits.

    The drop is in the metric's unit, positive where the value is worse than the reference; `upper` is its one-sided
    limit at `level`.
    """
    suite, name = metric
    scores = store.rows(
        """select s.*, i.form from evaluation_scores s join evaluations e using (evaluation_id)
           left join identities i on i.variant_key = e.variant_key and i.machine_key = e.machine_key
           where s.evaluation_id = ? and s.metric = ?""",
        [evaluation_id, name],
    )
    if not scores or scores[0]["value"] is None:
        return Refusal(suite, name, str(scores[0]["reason"]) if scores else "not measured")
    score = scores[0]
    sign = -1.0 if score["better"] == "lower" else 1.0
    plain = Comparison(
        suite=suite,
        metric=name,
        unit=str(score["unit"]),
        better=str(score["better"]),
        method="value",
        value_a=reference,
        value_b=float(score["value"]),
        drop=sign * (reference - float(score["value"])),
        n=int(score["n"]),
        clusters=int(score["clusters"]),
    )
    if (why := unreal(score)) is not None:
        return dataclasses.replace(plain, caveat=why)
    rows = store.rows(
        """select value, weight, cluster, low, high from item_values
           where evaluation_id = ? and metric = ? and value is not null order by item""",
        [evaluation_id, name],
    )
    return _judged(plain, score, rows, level)


def _judged(plain: Comparison, score: Mapping[str, Any], rows: list[dict[str, Any]], level: float) -> Comparison:
    values, weights = (np.array([row[k] for row in rows], dtype=np.float64) for k in ("value", "weight"))
    clusters = [row["cluster"] for row in rows]
    worse = _worse(plain, values)
    if len(rows) == 1 and score["unit"] in ("B", "B/token"):
        return dataclasses.replace(plain, method="counted", low=plain.drop, high=plain.drop, upper=plain.drop)
    if len(rows) == 1 and rows[0]["low"] is not None:
        return _of_limits(plain, _worse(plain, np.array([rows[0]["low"], rows[0]["high"]])))
    if score["reduce"] == "median" and len(set(clusters)) == len(clusters):
        return _median(plain, worse, level)
    if score["reduce"] != "mean":
        return dataclasses.replace(plain, caveat=f"no test for a {score['reduce']} yet")
    groups = len(set(clusters))
    alone = groups == len(clusters)
    if np.isin(values, (0, 1)).all() and (weights == 1).all():
        effect = 1.0 if alone else design_effect(values, clusters)
        if not alone and values.min() == values.max():
            effect = len(values) / groups  # no spread to estimate: as if a cluster were one item
        return _share(plain, values, effect, level)
    if groups < MIN_CLUSTERS:
        return dataclasses.replace(plain, caveat=f"fewer than {MIN_CLUSTERS} {'items' if alone else 'clusters'}")
    mean = clustered_mean(worse, None if alone else clusters, weights)
    low, high = mean.interval() or (None, None)
    return dataclasses.replace(plain, method="t", low=low, high=high, upper=mean.upper(level), p_worse=mean.p_greater())


def _worse(plain: Comparison, values: Floats) -> Floats:
    """How far each value is on the worse side of the reference."""
    away: Floats = values - (plain.value_a or 0.0)
    return away if plain.better == "lower" else -away


def _of_limits(plain: Comparison, limits: Floats) -> Comparison:
    """A figure of the whole set brings 95 % limits: beyond them on one side lies 2.5 %."""
    low, high = float(limits.min()), float(limits.max())
    return dataclasses.replace(
        plain, method="the suite's own limits", low=low, high=high, upper=high, p_worse=0.025 if low > 0 else 1.0
    )


def _median(plain: Comparison, worse: Floats, level: float) -> Comparison:
    """Sign test, and limits by order statistics (Conover 1999, sections 3.2 and 3.4): any distribution will do."""
    from scipy.stats import binom

    ranked, n = np.sort(worse), len(worse)
    above = int((worse > 0).sum())
    inside = n - int((worse == 0).sum())

    def outermost(tail: float) -> int | None:
        """How many values from the end the limit is, counted from 0; None where even the last is too likely passed."""
        rank = int(binom.ppf(tail, n, 0.5))
        rank -= int(binom.cdf(rank, n, 0.5) > tail)
        return rank if rank >= 0 else None

    one, two = outermost(1 - level), outermost(0.025)
    if one is None or two is None:
        return dataclasses.replace(plain, caveat="too few values for the limits of a median")
    return dataclasses.replace(
        plain,
        method="sign test",
        low=float(ranked[two]),
        high=float(ranked[n - 1 - two]),
        upper=float(ranked[n - 1 - one]),
        p_worse=float(binom.sf(above - 1, inside, 0.5)) if inside else 1.0,
    )


def _share(plain: Comparison, values: Floats, effect: float, level: float) -> Comparison:
    """Exact binomial limits, the items divided by the design effect."""
    from scipy.special import betainc

    n = len(values) / effect
    # counted as events on the worse side
    bad = float(values.sum() if plain.better == "lower" else len(values) - values.sum()) / effect
    allowed = (plain.value_a or 0.0) if plain.better == "lower" else 1 - (plain.value_a or 0.0)
    low, high = clopper_pearson(bad, n)
    p = float(betainc(bad, n - bad + 1, min(max(allowed, 0.0), 1.0))) if bad > 0 else 1.0
    return dataclasses.replace(
        plain,
        method="binomial",
        low=low - allowed,
        high=high - allowed,
        upper=clopper_pearson(bad, n, 2 * level - 1)[1] - allowed,
        p_worse=p if math.isfinite(p) else 1.0,
        design_effect=effect,
    )
