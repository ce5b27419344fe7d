"""What files of plants share: the value of a metric over samples, and rows written to a file for a suite to read."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weighin.harness import Sample


def mean(samples: Iterable[Sample], name: str) -> float | None:
    """The weighted mean of a metric's samples, as the store reckons it; None where nothing was measured."""
    found = [(s.value, s.weight) for s in samples if s.metric and s.metric.name == name and s.value is not None]
    return sum(value * weight for value, weight in found) / sum(weight for _, weight in found) if found else None


def one(samples: Iterable[Sample], name: str) -> Sample:
    """The one sample of a figure of the whole set."""
    (found,) = [s for s in samples if s.metric and s.metric.name == name]
    return found


@contextmanager
def written(rows: Iterable[Mapping[str, Any]], name: str = "rows.jsonl") -> Iterator[str]:
    """The path of a JSON-lines file of `rows`, gone afterwards."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        yield str(file)
