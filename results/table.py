"""Samples as tables that DuckDB takes in a gulp each."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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

ROWS = 5_000
"""Of one gulp: enough to be quick, few enough that the largest evaluation needs no more memory than this."""


def sample_frames(
    evaluation_id: str, samples: Iterable[Sample], metrics: dict[str, Metric]
) -> "Iterator[pd.DataFrame]":
    """One row a sample with the columns of the table `samples`, in frames of at most `ROWS` rows.

    Metrics are added to `metrics` by name, in order of appearance. Raises `StoreError` for what cannot be kept without
    guessing: a sample that names no metric, one metric with two meanings, the same item and repetition twice, a weight
    that is negative or not finite.
    """
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
        records.append(_record(evaluation_id, metric, sample))
        if len(records) == ROWS:
            yield _frame(records)
            records = []
    if records:
        yield _frame(records)


def metric_frame(evaluation_id: str, metrics: Iterable[Metric]) -> "pd.DataFrame":
    """One row a metric with the columns of the table `metrics`: row by row is slow where there are hundreds."""
    import pandas as pd

    frame = pd.DataFrame([dataclasses.asdict(metric) for metric in metrics]).rename(columns={"name": "metric"})
    return frame.assign(evaluation_id=evaluation_id, place=range(len(frame)))


def row_frame(rows: Sequence[Sequence[Any]]) -> "pd.DataFrame":
    """Rows as they are, whatever pandas would infer of their types."""
    import pandas as pd

    return pd.DataFrame(list(rows), dtype="object")


def _record(evaluation_id: str, metric: Metric, sample: Sample) -> tuple[Any, ...]:
    if not (math.isfinite(sample.weight) and sample.weight >= 0):
        raise StoreError(f"{metric.name}: item {sample.item!r} has the weight {sample.weight}; it must be >= 0")
    value, reason = _kept(sample)
    cluster = sample.item if sample.cluster is None else sample.cluster
    detail = json.dumps(_finite(dict(sample.detail)), default=str, ensure_ascii=False) if sample.detail else "{}"
    given = (sample.item, sample.rep, cluster, value, float(sample.weight), sample.source, reason, detail)
    return (evaluation_id, metric.name, *given, *_limits(metric, sample))


def _frame(records: list[tuple[Any, ...]]) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.DataFrame.from_records(records, columns=list(COLUMNS))
    numbers = ("value", "weight", "low", "high")
    text = [name for name in COLUMNS if name not in ("rep", *numbers)]
    # plain objects whatever pandas would infer: a column of None only must stay text, a value of None a NULL
    return frame.astype({**dict.fromkeys(text, "object"), "rep": "int32", **dict.fromkeys(numbers, "float64")})


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
