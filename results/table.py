"""Samples as a table that DuckDB takes in one gulp."""

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from weighin.results.errors import StoreError
from weighin.results.records import Metric, Sample

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "evaluation_id",
    "metric",
    "item",
    "rep",
    "cluster",
    "value",
    "weight",
    "source",
    "reason",
    "detail",
    "low",
    "high",
)


def sample_frame(
    evaluation_id: str, samples: Iterable[Sample], declared: Iterable[Metric] = ()
) -> tuple[list[Metric], "pd.DataFrame"]:
    """The metrics in order of appearance, and one row a sample with the columns of the table `samples`.

    Raises `StoreError` for what cannot be kept without guessing: a sample that names no metric, one metric with two
    meanings, the same item and repetition twice, a weight that is negative or not finite.
    """
    import pandas as pd

    metrics = {metric.name: metric for metric in declared}
    seen: set[tuple[str, str, int]] = set()
    records = []
    for sample in samples:
        metric = _metric(sample, metrics)
        if (mark := (metric.name, sample.item, sample.rep)) in seen:
            raise StoreError(
                f"{metric.name}: item {sample.item!r} appears twice with repetition {sample.rep}; "
                "give every item a name of its own, or count `rep`"
            )
        seen.add(mark)
        if not (math.isfinite(sample.weight) and sample.weight >= 0):
            raise StoreError(f"{metric.name}: item {sample.item!r} has the weight {sample.weight}; it must be >= 0")
        value, reason = _kept(sample)
        cluster = sample.item if sample.cluster is None else sample.cluster
        detail = json.dumps(_finite(dict(sample.detail)), default=str, ensure_ascii=False) if sample.detail else "{}"
        given = (sample.item, sample.rep, cluster, value, float(sample.weight), sample.source, reason, detail)
        records.append((evaluation_id, metric.name, *given, *_limits(metric, sample)))
    frame = pd.DataFrame.from_records(records, columns=list(COLUMNS))
    numbers = ("value", "weight", "low", "high")
    text = [name for name in COLUMNS if name not in ("rep", *numbers)]
    # plain objects whatever pandas would infer: a column of None only must stay text, a value of None a NULL
    frame = frame.astype({**dict.fromkeys(text, "object"), "rep": "int32", **dict.fromkeys(numbers, "float64")})
    return list(metrics.values()), frame


def _metric(sample: Sample, metrics: dict[str, Metric]) -> Metric:
    if sample.metric is None:
        raise StoreError(f"item {sample.item!r}: the sample names no metric")
    known = metrics.setdefault(sample.metric.name, sample.metric)
    if known != sample.metric:
        raise StoreError(f"{known.name}: two meanings in one evaluation: {known} and {sample.metric}")
    return known


def _kept(sample: Sample) -> tuple[float | None, str | None]:
    if sample.value is None:
        return None, sample.reason or "not measured"
    value = float(sample.value)
    return (value, sample.reason) if math.isfinite(value) else (None, sample.reason or "not finite")


def _limits(metric: Metric, sample: Sample) -> tuple[float | None, float | None]:
    low, high = sample.low, sample.high
    if low is None and high is None:
        return None, None
    if sample.value is None or low is None or high is None or not low <= sample.value <= high:
        raise StoreError(f"{metric.name}: item {sample.item!r} has {sample.value} between {low} and {high}")
    return low, high


def _finite(value: object) -> object:
    """`value` without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
