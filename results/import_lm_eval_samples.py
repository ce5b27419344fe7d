"""Samples of lm-eval, gone through one at a time: whether they make up a figure, and what they hold."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from weighin.results.outside import Unreadable, number, prose, table
from weighin.results.records import Metric, Reduce, Sample

Name = tuple[str, str]
"""A metric and its filter."""

Rows = Callable[[], Iterable[Any]]
"""A task's samples, from the first one on at each call."""

KNOWN = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
         "prompt_hash", "target_hash", "schema_version"}  # fmt: skip

SHOWN = 1000
"""Characters of a prompt or an answer that are kept to be looked at; the file has the rest."""


@dataclass
class _Sums:
    """Of one metric: how many documents gave a number, or a pair (log-likelihood, length), and what they add up to."""

    numbers: int = 0
    pairs: int = 0
    first: float = 0.0
    second: float = 0.0

    def add(self, value: Any) -> None:
        if (plain := number(value)) is not None:
            self.numbers, self.first = self.numbers + 1, self.first + plain
        elif (pair := _pair(value)) is not None:
            self.pairs, self.first, self.second = self.pairs + 1, self.first + pair[0], self.second + pair[1]

    def candidates(self, bits: bool) -> dict[Reduce, float]:
        """What each way of reducing the documents comes to. The likelihood metrics are those of lm_eval/api/metrics.py:
        perplexity exp(-mean), weighted perplexity exp(-sum / length), bits per byte -sum / (length ln 2)."""
        if self.numbers and not self.pairs:
            mean = self.first / self.numbers
            return {"mean": mean, "exp_mean": _exp(-mean)}
        if self.pairs and not self.numbers and self.second > 0:
            nats = -self.first / self.second
            return {"mean": nats / math.log(2)} if bits else {"exp_mean": _exp(nats)}
        return {}


@dataclass(frozen=True)
class Survey:
    """What a task's samples are. `documents` counts those of the filter that has most."""

    rows: Rows
    filters: list[str]
    documents: int
    sums: Mapping[Name, _Sums] = field(default_factory=dict)

    def reduction(self, metric: Name, value: float | None, items: int | None) -> Reduce | None:
        """How the samples make up the figure `value` of `items` documents; None where they do not."""
        if metric not in self.sums or value is None or (items is not None and items != self.documents):
            return None
        for how, found in self.sums[metric].candidates(metric[0] == "bits_per_byte").items():
            if math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
                return how
        return None

    def samples(self, metrics: Mapping[Name, Metric], cluster: str | None = None) -> Iterator[Sample]:
        """Every document's values of these metrics, read anew; its field `cluster` says what it belongs to."""
        told: set[str] = set()
        for item, filtered, row in _documents(self.rows, self.filters):
            for (metric, of_filter), meaning in metrics.items():
                if of_filter != filtered or metric not in row:
                    continue
                value, weight = _one(row[metric], meaning)
                detail = {} if item in told else _detail(row)
                told.add(item)
                group = prose(str(row["doc"][cluster])) if cluster in table(row.get("doc")) else None
                yield Sample(item, value, meaning, weight=weight, cluster=group, source="imported", detail=detail)


def survey(rows: Rows, filters: list[str]) -> Survey:
    """Go through a task's samples once. Raises `Unreadable` where they are broken."""
    sums: dict[Name, _Sums] = {}
    counts: dict[str, int] = {}
    for _, filtered, row in _documents(rows, filters):
        counts[filtered] = counts.get(filtered, 0) + 1
        for metric in _metrics(row):
            sums.setdefault((metric, filtered), _Sums()).add(row[metric])
    return Survey(rows, filters, max(counts.values(), default=0), sums)


def _documents(rows: Rows, filters: list[str]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Item, filter and row of each line. Where lines name no filter (before 0.4.3), a document's first line is of the
    first filter that the results know, its second of the second. Equal documents are told apart by a count."""
    seen: dict[tuple[str, str], int] = {}
    turns: dict[str, int] = {}
    for row in rows():
        if not isinstance(row, dict):
            raise Unreadable(f"a sample is no object, but {str(row)[:40]!r}")
        filtered = row.get("filter")
        if not isinstance(filtered, str):
            turn = turns.setdefault(str(row.get("doc_id")), 0)
            turns[str(row.get("doc_id"))] += 1
            filtered = filters[turn] if turn < len(filters) else f"filter {turn + 1}"
        item = item_of(row)
        place = (filtered, item)
        seen[place] = seen.get(place, 0) + 1
        yield item if seen[place] == 1 else f"{item}#{seen[place]}", filtered, row


def item_of(row: Mapping[str, Any]) -> str:
    """The content hash of a row's document, as the accuracy suite has it; of its prompt and target where the document
    was not logged."""
    if "doc" in row:
        said = row["doc"]
    else:
        said = row.get("doc_hash") or [_arguments(row)[:1], row.get("target"), row.get("doc_id")]
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _metrics(row: Mapping[str, Any]) -> list[str]:
    said = row.get("metrics")
    names = said if isinstance(said, list) else [key for key in row if key not in KNOWN]
    return [metric for metric in names if isinstance(metric, str) and metric in row]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = number(value[0]), number(value[1])
    return None if first is None or second is None or second <= 0 else (first, second)


def _one(value: Any, metric: Metric) -> tuple[float | None, float]:
    """Value and weight of one document, as the accuracy suite keeps them."""
    if (pair := _pair(value)) is not None:
        scale = pair[1] * (math.log(2) if metric.reduce == "mean" else 1.0)
        return -pair[0] / scale, pair[1]
    plain = number(value)
    return (None if plain is None else -plain if metric.reduce == "exp_mean" else plain), 1.0


def _arguments(row: Mapping[str, Any]) -> list[list[Any]]:
    """The requests of a row: objects `gen_args_0`, `arg_0` since 0.4.3, lists before."""
    given = row.get("arguments")
    requests = list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else []
    return [list(r.values()) if isinstance(r, dict) else r if isinstance(r, list) else [r] for r in requests]


def _detail(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the accuracy suite keeps of an item, in short: of a prompt its end, where the question is."""
    requests = _arguments(row)
    first = str(requests[0][0]) if requests and requests[0] else None
    said = {
        "doc": row.get("doc_id"),
        "prompt": first if first is None or len(first) <= SHOWN else "…" + first[-SHOWN:],
        "choices": [r[1][:SHOWN] if len(r) > 1 and isinstance(r[1], str) else "" for r in requests],
        "target": _short(row.get("target")),
        "responses": _short(row.get("filtered_resps")),
        "prompt_hash": row.get("prompt_hash"),
    }
    return {key: prose(value) for key, value in said.items() if value is not None}


def _short(value: Any) -> Any:
    """Text, or a list of texts, none longer than a reader looks at."""
    if isinstance(value, list):
        return [_short(part) for part in value[:100]]
    return value[:SHOWN] + "…" if isinstance(value, str) and len(value) > SHOWN else value
