"""The statements that write: one a table, so that no table or column name is ever put together from outside text."""

from weighin.results.rows import (
    BuildRow,
    CalibrationRow,
    CellRow,
    EvaluationRow,
    IdentityRow,
    Machine,
    RunRow,
    VariantRow,
    VerdictRow,
    WaiverRow,
)

_ANEW = """on conflict do update set status = excluded.status, evaluation_id = excluded.evaluation_id,
    reused = excluded.reused, reason = excluded.reason, log = coalesce(excluded.log, cells.log)"""

# Keyed by the class of the row, whose fields are the columns in their order.
INSERT = {
    Machine: "insert or ignore into machines values (?, ?, ?, ?, ?, ?, ?, ?)",
    VariantRow: "insert or ignore into variants values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    IdentityRow: "insert or replace into identities values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    RunRow: "insert into runs values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    EvaluationRow: "insert into evaluations values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    CalibrationRow: f"insert into calibrations values ({', '.join('?' * 17)})",
    VerdictRow: f"insert into verdicts values ({', '.join('?' * 12)})",
    WaiverRow: "insert into waivers values (?, ?, ?, ?, ?, ?)",
    BuildRow: "insert or replace into builds values (?, ?, ?, ?, ?, ?, ?)",
    CellRow: f"insert into cells values (?, ?, ?, ?, ?, ?, ?, ?) {_ANEW}",
}
# Cells of the table `frame` (run, label, suite, evaluation), answered by what became of that evaluation.
REUSE = f"""insert into cells
    select f.run_id, f.label, f.suite, coalesce(e.status, 'failed'), f.evaluation_id, true,
        if(e.status is null, 'its evaluation is missing from the store', e.reason), null
    from frame f(run_id, label, suite, evaluation_id) left join evaluations e using (evaluation_id) {_ANEW}"""
