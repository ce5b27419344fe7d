"""Runs that were stopped before their end."""

from weighin.results.store import Store


def cut_short(store: Store, run: str, why: str) -> None:
    """End a run as a failed one; cells that were not reached say why. What was measured stays."""
    rows = store.rows("select label, suite from cells where run_id = ? and status in ('planned', 'running')", [run])
    for row in rows:
        store.set_cell(run, row["label"], row["suite"], status="failed", reason=f"not measured: {why}")
    store.end_run(run, "failed")
