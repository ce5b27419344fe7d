"""The squares of a run's grid and the runs of a store as tables: how far, what failed, what it cost. No Streamlit."""

import os
from collections import Counter
from pathlib import Path

import pandas as pd

from weighin.leaderboard.frames import Board, Row
from weighin.results.render import MISSING, quantity
from weighin.results.store import Store

TAIL = 4000
"""Bytes of a log's end that are shown."""
_OPEN = ("planned", "running")


def runs(store: Store, most: int = 500) -> list[Row]:
    """The newest runs with how their cells went and the seconds that these took, newest first."""
    return store.rows(
        """select r.run_id, r.spec_name, r.status, r.started_at, r.ended_at,
               count(c.label) as cells, count(*) filter (where c.status = 'ok') as ok,
               count(*) filter (where c.status = 'abstained') as abstained,
               count(*) filter (where c.status = 'failed') as failed,
               count(*) filter (where c.reused) as reused,
               sum(e.seconds) filter (where not c.reused) as seconds
           from (from runs order by started_at desc, run_id desc limit ?) r
           left join cells c using (run_id) left join evaluations e using (evaluation_id)
           group by all order by r.started_at desc, r.run_id desc""",
        [most],
    )


def listed(rows: list[Row]) -> pd.DataFrame:
    """One row a run."""
    return pd.DataFrame(
        {
            "started (UTC)": [f"{row['started_at']:%Y-%m-%d %H:%M}" for row in rows],
            "run": [row["run_id"] for row in rows],
            "spec": [row["spec_name"] for row in rows],
            "status": [row["status"] for row in rows],
            **{name: [row[name] for row in rows] for name in ("cells", "ok", "abstained", "failed", "reused")},
            "measuring took": [quantity(row["seconds"], "s") for row in rows],
        }
    )


def progress(board: Board) -> tuple[float, str]:
    """The share of cells that are done, and the state of all in words."""
    count = Counter(cell["status"] for cell in board.cells)
    done = len(board.cells) - sum(count[name] for name in _OPEN)
    told = ", ".join(
        f"{count[name]} {name}" for name in ("ok", "abstained", "failed", "running", "planned") if count[name]
    )
    return (done / len(board.cells) if board.cells else 0.0), f"{done} of {len(board.cells)} cells: {told or 'none'}."


def wanting(board: Board) -> pd.DataFrame:
    """Cells that gave nothing: failed first, then abstained, then what is still open."""
    order = {"failed": 0, "running": 1, "planned": 2, "abstained": 3}
    rows = sorted((cell for cell in board.cells if cell["status"] in order), key=lambda cell: order[cell["status"]])
    found = [
        (cell["status"], cell["variant"], cell["suite"], cell["reason"] or _turn(cell), log(cell)) for cell in rows
    ]
    return pd.DataFrame(found, columns=["status", "variant", "suite", "reason", "log"], dtype="object")


def _turn(cell: Row) -> str:
    return {"running": "is being measured", "planned": "its turn has not come"}.get(
        cell["status"], "no reason was kept"
    )


def log(cell: Row) -> str:
    """The file's name; the store says where it is."""
    return cell["log"] or MISSING


def tail(path: str) -> str | None:
    """The end of a log; None unless it is a log file below the project's own directory, which is all that is read."""
    home = Path(os.environ.get("WEIGHIN_HOME", ".weighin")).expanduser().resolve()
    try:
        file = Path(path).resolve()
        if file.suffix != ".log" or not file.is_relative_to(home / "logs"):
            return None
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL))
            return opened.read().decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def cost(board: Board) -> pd.DataFrame:
    """What the run took, a row a suite, and the making of its variants as a row of its own."""
    spent: dict[str, list[float]] = {}
    for cell in board.cells:
        if not cell["reused"] and cell["seconds"] is not None:
            spent.setdefault(cell["suite"], []).append(cell["seconds"])
    rows = [(suite, len(times), quantity(sum(times), "s"), quantity(max(times), "s")) for suite, times in spent.items()]
    began = board.run["started_at"]
    made = [c["made_seconds"] for c in board.cards if c["made_seconds"] is not None and c["made_at"] >= began]
    if made:
        rows.append(("making the variants", len(made), quantity(sum(made), "s"), quantity(max(made), "s")))
    return pd.DataFrame(rows, columns=["for", "cells", "took", "longest"])
