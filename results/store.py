"""The store: a DuckDB file that writers open for one transaction and readers for one query, or a server that holds one.

A reader of another process cannot open a DuckDB file while a writer holds it, so nobody holds it for long.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.results.address import Address, place
from weighin.results.database import SCHEMA_VERSION
from weighin.results.opening import Connection, reading, writing
from weighin.results.records import Metric, Sample
from weighin.results.remote import Connection as RemoteConnection
from weighin.results.rows import (
    BuildRow,
    CalibrationRow,
    CellRow,
    CellStatus,
    EvaluationRow,
    IdentityRow,
    Machine,
    RunRow,
    RunStatus,
    VariantRow,
    VerdictRow,
    WaiverRow,
)
from weighin.results.statements import INSERT, REUSE
from weighin.results.table import metric_frame, row_frame, sample_frames
from weighin.results.values import python_values, row_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA_VERSION", "Store"]

_One = Machine | VariantRow | IdentityRow | CellRow | CalibrationRow | WaiverRow | BuildRow

Cell = tuple[str, str, str]
"""Run, label and suite."""


class Store:
    """A store: a file, or `quack:host:port`. Each method is one transaction or one query.

    All raise `StoreError` with one message.

    `patience` is how long to wait, in seconds, while another process holds the file.
    """

    def __init__(self, path: Path | str | Address, *, patience: float = 10.0) -> None:
        self.path = place(path)
        self.patience = patience
        self._shared: Connection | None = None
        self._open: Connection | None = None

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def exists(self) -> bool:
        """Whether it is there; `held`, `costs` and `latest_run` answer with nothing while it is not."""
        return isinstance(self.path, Address) or self.path.is_file()

    # -- reading ------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> "Iterator[Store]":
        """This store for reading only, opened once for all queries of the block: nobody writes in between."""
        with reading(self.path, self.patience) as con:
            held = Store(self.path, patience=self.patience)
            held._shared = con
            yield held

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if self._shared is not None:
            yield self._shared
        else:
            with reading(self.path, self.patience) as con:
                yield con

    def query(self, sql: str, params: Sequence[Any] = ()) -> "pd.DataFrame":
        """The answer to one read-only query; outside values come through `params`."""
        with self._reading() as con, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # DuckDB's own use of pandas, nothing a reader can mend
            return con.execute(sql, list(params)).df()

    def rows(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """The answer as dicts: NULL is None, JSON is decoded, a time is an aware `datetime` in UTC.

        `params` fill the statement's `?`, or by name its `$name`.
        """
        with self._reading() as con:
            cursor = con.execute(sql, dict(params) if isinstance(params, Mapping) else list(params))
            kinds = {name: str(kind) for name, kind, *_ in cursor.description or ()}
            # fetchall() would need pytz for a timestamp with time zone, which DuckDB does not depend on
            columns = [python_values(values, kinds[name]) for name, values in cursor.fetchnumpy().items()]
        return [dict(zip(kinds, row, strict=True)) for row in zip(*columns, strict=True)]

    def latest_run(self) -> str | None:
        """The newest run's id, an imported one only where there is no other; None where there is none yet."""
        if not self.exists():
            return None
        found = self.rows("select run_id from latest_run")
        return str(found[0]["run_id"]) if found else None

    def held(self, evaluation_keys: Iterable[str]) -> dict[str, str]:
        """The id of the latest evaluation, ok or abstained, of each of these keys that has one."""
        if not self.exists():
            return {}
        found = self.rows(
            """select evaluation_key, arg_max(evaluation_id, started_at) as evaluation_id from evaluations
               where status in ('ok', 'abstained') and list_contains(?, evaluation_key) group by all""",
            [sorted(set(evaluation_keys))],
        )
        return {row["evaluation_key"]: row["evaluation_id"] for row in found}

    def costs(self) -> dict[str, float]:
        """Mean seconds that each suite and each stage took so far, by name."""
        if not self.exists():
            return {}
        found = self.rows(
            """select name, avg(seconds) as seconds from (
                   select suite as name, seconds from evaluations
                   where status = 'ok' and not imported(protocol)
                   union all select stage, made_seconds from variants where stage is not null)
               where seconds is not null group by name order by name"""
        )
        return {row["name"]: row["seconds"] for row in found}

    def variant(self, variant_key: str) -> VariantRow | None:
        """The row of a checkpoint; None where the store does not know it."""
        found = self.rows("select * from variants where variant_key = ?", [variant_key]) if self.exists() else []
        return VariantRow(**found[0]) if found else None

    def identity(self, variant_key: str, machine_key: str) -> IdentityRow | None:
        """What a checkpoint turned out to be on a machine; None where it was not looked at there."""
        found = (
            self.rows("select * from identities where variant_key = ? and machine_key = ?", [variant_key, machine_key])
            if self.exists()
            else []
        )
        return IdentityRow(**found[0]) if found else None

    # -- writing ------------------------------------------------------------------------------------------------

    def add_machine(self, machine: Machine) -> None:
        """Keep a machine; one that is known already stays as it is."""
        self._insert(machine)

    def add_variant(self, variant: VariantRow) -> None:
        """Keep a checkpoint; one that is known already stays as it is."""
        self._insert(variant)

    def add_identity(self, identity: IdentityRow) -> None:
        """Keep what a checkpoint is on a machine; a newer look replaces an older one."""
        self._insert(identity)

    def start_run(
        self, run: RunRow, labels: Sequence[tuple[str, str | None]], cells: Sequence[tuple[str, str]]
    ) -> None:
        """Keep a run, its labels with their variant keys in the order of the spec, and its grid as planned cells."""
        named = [(run.run_id, label, position, key) for position, (label, key) in enumerate(labels)]
        with self._writing() as con:
            con.execute(INSERT[RunRow], row_values(run))
            if named:
                _append(con, "insert into labels select * from frame", row_frame(named))
            if cells:
                planned = [row_values(CellRow(run.run_id, label, suite, "planned")) for label, suite in cells]
                _append(con, "insert into cells select * from frame", row_frame(planned))

    def end_run(self, run_id: str, status: RunStatus) -> None:
        """Keep how a run ended, and that it ended now."""
        with self._writing() as con:
            con.execute(
                "update runs set status = ?, ended_at = ? where run_id = ?", [status, datetime.now(UTC), run_id]
            )

    def set_label(self, run_id: str, label: str, variant_key: str | None) -> None:
        """Keep which checkpoint a label means in a run."""
        with self._writing() as con:
            con.execute(
                "update labels set variant_key = ? where run_id = ? and label = ?", [variant_key, run_id, label]
            )

    def set_cell(
        self,
        run_id: str,
        label: str,
        suite: str,
        *,
        status: CellStatus,
        evaluation_id: str | None = None,
        reused: bool = False,
        reason: str | None = None,
        log: str | None = None,
    ) -> None:
        """Keep the state of one square of a run's grid; without `log` the one it has stays."""
        self._insert(CellRow(run_id, label, suite, status, evaluation_id, reused, reason, log))

    def reuse(self, run_id: str, cells: Iterable[tuple[str, str, str]]) -> None:
        """Answer cells `(label, suite, evaluation id)` of a run with evaluations that the store holds already."""
        named = [(run_id, label, suite, evaluation_id) for label, suite, evaluation_id in cells]
        if named:
            with self._writing() as con:
                _append(con, REUSE, row_frame(named))

    def add_evaluation(
        self,
        evaluation: EvaluationRow,
        samples: Iterable[Sample],
        cell: Cell | None = None,
        *,
        declared: Iterable[Metric] = (),
    ) -> None:
        """Keep an evaluation, its metrics and samples, and its cell's state, all in one transaction.

        Every sample names its metric. A value that is not finite is kept as NULL with the reason. `declared` brings
        metrics that ought to have samples: one that has none is shown as abstained.
        """
        key = evaluation.evaluation_id
        metrics = {metric.name: metric for metric in declared}
        with self._writing() as con:
            con.execute(INSERT[EvaluationRow], row_values(evaluation))
            for frame in sample_frames(key, samples, metrics):
                _append(con, "insert into samples by name select * from frame", frame)
            if metrics:
                _append(con, "insert into metrics by name select * from frame", metric_frame(key, metrics.values()))
            con.execute("insert into evaluation_scores from reckon(?)", [key])
            if cell:
                state = CellRow(*cell, evaluation.status, evaluation.evaluation_id, reason=evaluation.reason)
                con.execute(INSERT[CellRow], row_values(state))

    def add_calibration(self, row: CalibrationRow) -> None:
        """Keep what an instrument recovered of a planted truth."""
        self._insert(row)

    def add_verdicts(self, rows: Sequence[VerdictRow]) -> None:
        """Keep what one call of the gate found."""
        if rows:
            with self._writing() as con:
                con.executemany(INSERT[VerdictRow], [row_values(row) for row in rows])

    def add_build(self, row: BuildRow) -> None:
        """Keep a further build of a variant; a later try replaces an earlier one."""
        self._insert(row)

    def add_waiver(self, row: WaiverRow) -> None:
        """Keep which differences of protocol were allowed."""
        self._insert(row)

    @contextmanager
    def together(self) -> "Iterator[Store]":
        """This store for whatever the block reads and writes, all in one transaction: all of it or nothing is kept."""
        with writing(self.path, self.patience) as con:
            held = Store(self.path, patience=self.patience)
            held._shared = held._open = con
            yield held

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._open is not None:
            yield self._open
        else:
            with writing(self.path, self.patience) as con:
                yield con

    def _insert(self, row: _One) -> None:
        with self._writing() as con:
            con.execute(INSERT[type(row)], row_values(row))


def _append(con: Connection, sql: str, frame: "pd.DataFrame") -> None:
    """Run `sql`, which finds `frame` by its name here: one that is registered is held until the transaction ends."""
    if isinstance(con, RemoteConnection):
        con.append(sql, frame)
    else:
        con.execute(sql)
