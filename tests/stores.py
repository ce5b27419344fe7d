"""Small real stores for the tests of `weighin.results`: a grid of samples in, a store out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from weighin.results.database import writing
from weighin.results.records import Metric, Sample, Source
from weighin.results.rows import EvaluationRow, Form, IdentityRow, Machine, RunRow, VariantRow
from weighin.results.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)
ACC = Metric("acc", "1")
PERPLEXITY = Metric("perplexity", "1", better="lower", reduce="exp_mean")
KL = Metric("kl", "nat", better="lower")
TTFT = Metric("ttft", "s", better="lower", reduce="median", runtime=True)
ENERGY = Metric("energy", "J/token", better="lower", runtime=True)
DISK = Metric("disk", "B", better="lower", reduce="max")

Grid = Mapping[str, Mapping[str, Sequence[Sample] | str]]
"""Label to suite to samples, or to the reason why the suite abstained."""


@dataclass(frozen=True)
class Setting:
    """What else a run has; `protocols` is by label, `forms` too."""

    run: str = "r1"
    machine: str = "m1"
    order: int = 0
    forms: Mapping[str, Form] | None = None
    protocols: Mapping[str, Mapping[str, Any]] | None = None


def machine(key: str = "m1") -> Machine:
    return Machine(key, "host", "Linux", "cpu", 2, 8 << 30, None, {"cpu": "cpu"})


def variant(label: str) -> VariantRow:
    base = label == "base"
    return VariantRow(
        f"key-{label}", None if base else "key-base", "key-base", None if base else "stage", {"bits": 4},
        0 if base else 1, START, None if base else 2.0, None if base else 1 << 20, "m1",
    )  # fmt: skip


def identity(label: str, where: str = "m1", form: Form = "dense") -> IdentityRow:
    return IdentityRow(
        f"key-{label}", where, 1000, 2000, 2000, {"bfloat16": 1000}, form, "aten::mm", 0.0, None, "a base"
    )


def run_row(run: str = "r1", where: str = "m1", order: int = 0) -> RunRow:
    return RunRow(run, {"variants": {}}, "spec.yaml", None, {"duckdb": "1"}, where, START + timedelta(hours=order))


def evaluation(
    name: str = "e1", label: str = "base", suite: str = "accuracy", where: str = "m1", **other: Any
) -> EvaluationRow:
    given: dict[str, Any] = {"protocol": {}, "status": "ok", "reason": None, "started_at": START} | other
    return EvaluationRow(
        evaluation_id=name, evaluation_key=f"{label}-{suite}", variant_key=f"key-{label}", suite=suite, params={},
        machine_key=where, seconds=1.5, **given,
    )  # fmt: skip


def shares(right: Sequence[Any], metric: Metric = ACC, clusters: Sequence[str] | None = None) -> list[Sample]:
    """One binary sample an item, in the given order; items are named by their place."""
    groups = clusters or [None] * len(right)
    return [Sample(f"item{i}", float(v), metric, cluster=g) for i, (v, g) in enumerate(zip(right, groups, strict=True))]


def numbers(values: Sequence[float | None], metric: Metric, source: Source = "measured") -> list[Sample]:
    return [Sample(f"item{i}", v, metric, source=source) for i, v in enumerate(values)]


def flipped(n: int, worse: int, better: int) -> tuple[list[int], list[int]]:
    """Two lists of n right answers (1) and wrong ones (0): `worse` go from right to wrong, `better` back."""
    same = n - worse - better
    half = same // 2
    a = [1] * worse + [0] * better + [1] * half + [0] * (same - half)
    b = [0] * worse + [1] * better + [1] * half + [0] * (same - half)
    return a, b


class _Batch(Store):
    """Writes all it is given through one connection, in one transaction: a test need not open the file twenty times."""

    def __init__(self, path: Path, con: duckdb.DuckDBPyConnection) -> None:
        super().__init__(path)
        self.con = con

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        yield self.con


@cache
def _empty() -> bytes:
    """A store without rows, as a file's bytes."""
    with TemporaryDirectory() as place:
        path = Path(place) / "w.duckdb"
        with writing(path, 10):
            pass
        return path.read_bytes()


def fill(path: Path, grid: Grid, setting: Setting = Setting()) -> Store:
    """A store with one run of `grid`, added to what `path` holds."""
    return fill_all(path, [(grid, setting)])


def fill_all(path: Path, runs: Sequence[tuple[Grid, Setting]]) -> Store:
    """A store with several runs, added to what `path` holds."""
    if not path.exists():
        path.write_bytes(_empty())
    with writing(path, 10) as con:
        for grid, setting in runs:
            _fill(_Batch(path, con), grid, setting)
    return Store(path)


def _fill(store: Store, grid: Grid, setting: Setting) -> None:
    run, where = setting.run, setting.machine
    store.add_machine(machine(where))
    labels = [(label, f"key-{label}") for label in grid]
    for label in grid:
        store.add_variant(variant(label))
        store.add_identity(identity(label, where, (setting.forms or {}).get(label, "dense")))
    cells = [(label, suite) for label, suites in grid.items() for suite in suites]
    store.start_run(run_row(run, where, setting.order), labels, cells)
    for label, suite in cells:
        samples = grid[label][suite]
        row = evaluation(
            f"{run}-{label}-{suite}", label, suite, where,
            protocol=(setting.protocols or {}).get(label, {}),
            status="abstained" if isinstance(samples, str) else "ok",
            reason=samples if isinstance(samples, str) else None,
            started_at=START + timedelta(hours=setting.order),
        )  # fmt: skip
        store.add_evaluation(row, [] if isinstance(samples, str) else samples, (run, label, suite))
    store.end_run(run, "ok")
