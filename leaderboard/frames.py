"""What the page asks the store: runs, one run as it stood at one moment, its metrics and its verdicts. No Streamlit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from weighin.results.address import Place
from weighin.results.errors import WeighinError
from weighin.results.gate import Bench, Verdict, judge
from weighin.results.lookup import quality
from weighin.results.render import quantity
from weighin.results.rules import rules_of
from weighin.results.sequential import look_alpha
from weighin.results.store import Store

Row = dict[str, Any]

PATIENCE = 5.0
"""Seconds to wait while a run in flight holds the store, which it does for a moment at a time."""
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
"""Which way is better."""
ALL = "*"
"""Stands in the view `scores` for a cell that gave no metric at all."""


# What the pages show of a score; a run may have tens of thousands of them.
_SCORE = """variant, position, variant_key, suite, metric, unit, better, runtime, place, beside, n, value, ci_low,
    ci_high, ci_reason, status, reason, source, evaluation_id, eligible, eligible_reason, reused"""


@dataclass(frozen=True)
class Measure:
    """A column of the leaderboard: one metric of one suite in one unit."""

    suite: str
    metric: str
    unit: str
    better: str

    @property
    def name(self) -> str:
        """As the command line and the gate write it."""
        return f"{self.suite}.{self.metric}"

    @property
    def header(self) -> str:
        """What stands above its numbers, which are in base units."""
        return f"{self.metric} [{self.unit}] {ARROWS[self.better]}".rstrip()


@dataclass(frozen=True)
class Board:
    """One run as it stood at one moment: rows of `scores`, `variant_cards` and `cells`; cards in the spec's order."""

    run: Row
    scores: list[Row]
    cards: list[Row]
    cells: list[Row]

    @cached_property
    def variants(self) -> list[str]:
        """The labels, in the cards' order."""
        return [card["variant"] for card in self.cards]

    @cached_property
    def sources(self) -> dict[str, set[str]]:
        """How figures came about (measured, counter, modelled, imported), by variant."""
        found: dict[str, set[str]] = {}
        for row in self.scores:
            if row["source"]:
                found.setdefault(row["variant"], set()).add(row["source"])
        return found

    @cached_property
    def index(self) -> dict[tuple[str, str, str], Row]:
        """The rows of `scores` by variant, suite and metric."""
        return {(row["variant"], row["suite"], row["metric"]): row for row in self.scores}

    @cached_property
    def measures(self) -> "list[Measure]":
        """Every metric that some variant has, each suite's in its own order, the suite of the headline first."""
        found = dict.fromkeys(
            Measure(row["suite"], row["metric"], row["unit"] or "1", row["better"])
            for row in self.scores
            if row["metric"] != ALL
        )
        return sorted(found, key=lambda m: (m.suite != "accuracy", m.suite))


def with_cards(board: Board, cards: list[Row]) -> Board:
    """The same run with other cards, or in another order; what was reckoned of its scores goes along."""
    made = replace(board, cards=cards)
    made.__dict__.update(index=board.index, measures=board.measures, sources=board.sources)
    return made


def short(text: str, most: int = 80) -> str:
    """Text for a place that must not grow with it; tables hold it whole."""
    return text if len(text) <= most else text[: most - 1] + "…"


def open_store(path: Place) -> Store:
    """The store, for reading."""
    return Store(path, patience=PATIENCE)


def runs(store: Store) -> list[Row]:
    """Every run with its machine, newest first. Raises `WeighinError` where there is none or no store."""
    found = store.rows(
        """select r.run_id, r.spec_name, r.spec, r.status, r.started_at, r.ended_at, r.machine_key,
               m.cpu, m.cores, m.ram_bytes, m.gpu, m.os
           from runs r left join machines m using (machine_key)
           order by imported(r.spec), r.started_at desc, r.run_id desc"""
    )
    if not found:
        raise WeighinError(f"{store.path}: holds no run yet; run `weighin run` first")
    return found


def read_board(store: Store, run: Row) -> Board:
    """All that is known of a run, as of one moment."""
    key = [run["run_id"]]
    with store.snapshot() as held:
        return Board(
            run,
            held.rows(f"select {_SCORE} from scores where run_id = ? order by suite, place, metric, position", key),
            held.rows("select * from variant_cards where run_id = ? order by position", key),
            held.rows(
                """select label as variant, c.suite, c.status, c.reason, c.log, c.reused, c.evaluation_id, e.seconds
                   from cells c left join evaluations e using (evaluation_id) where c.run_id = ? order by c.suite""",
                key,
            ),
        )


def machines(known: Sequence[Row]) -> dict[str, str]:
    """Each machine that some of these runs were made on, in words."""
    return {run["machine_key"]: _machine(run, ours=True) for run in known}


def parents(store: Store) -> dict[str, str | None]:
    """Each checkpoint's parent, by key."""
    return {row["variant_key"]: row["parent_key"] for row in store.rows("select variant_key, parent_key from variants")}


def run_title(run: Row) -> str:
    """A run in a list of runs."""
    return f"{run['started_at']:%Y-%m-%d %H:%M} UTC · {short(run['spec_name'])} · {run['run_id']}"


def run_sentence(board: Board) -> str:
    """Which run this is: spec, start, state and machine, in one sentence."""
    run = board.run
    open_cells = sum(cell["status"] in ("planned", "running") for cell in board.cells)
    states = {"running": "in flight or interrupted", "ok": "complete", "failed": "with failed cells"}
    state = str(states.get(run["status"], run["status"]))
    if open_cells:
        state += f", {len(board.cells) - open_cells} of {len(board.cells)} cells weighed"
    told = run["spec"].get("origin") if isinstance(run["spec"], dict) else None
    machine = _machine(run, ours=not told)
    if told:
        files = short(", ".join(str(file.get("path")) for file in told.get("files", ())), 200)
        began = f"{run['started_at']:%Y-%m-%d %H:%M} UTC"
        return (
            f"Run {run['run_id']}, imported from {told['tool']} {told['version']} ({files}), of {began}, on {machine}."
        )
    began = f"{run['started_at']:%Y-%m-%d %H:%M} UTC"
    return f"Run {run['run_id']} of spec {short(run['spec_name'])}, started {began}, {state}, on {machine}."


def _machine(run: Row, *, ours: bool) -> str:
    """A machine in words; what an imported file does not say of it is left out."""
    if run["cpu"] in (None, "unknown"):
        return run["gpu"] or "an unknown machine"
    cores = [f"{run['cores']} cores"] if run["cores"] else []
    memory = [f"{quantity(run['ram_bytes'], 'B')} memory"] if run["ram_bytes"] else []
    gpu = [run["gpu"]] if run["gpu"] else ["no GPU"] if ours else []
    return f"{', '.join([run['cpu'], *cores, *memory, *gpu])} ({run['os']})"


def headlines(board: Board, known: Sequence[Measure]) -> list[Measure]:
    """The columns to begin with: of each suite, and of each task of accuracy, the metric that leads.

    That is the first that has a better way and, where there is one, a number: a suite that abstained shows its first.
    """
    numbers = {(row["suite"], row["metric"]) for row in board.scores if row["value"] is not None}
    chosen: dict[tuple[str, str], Measure] = {}
    for with_number in (True, False):
        for measure in known:
            task = measure.metric.rpartition("/")[0] if measure.suite == "accuracy" else ""
            if measure.better != "none" and ((measure.suite, measure.metric) in numbers) >= with_number:
                chosen.setdefault((measure.suite, task), measure)
    return sorted(chosen.values(), key=known.index) or list(known[:4])


def axes(board: Board) -> tuple[list[Measure], Measure | None, Measure | None]:
    """What a front can be drawn of, then the usual cost and the usual quality: disk, and the first accuracy.

    Only metrics whose better way is known and one; quality is the first of accuracy, else any where more is better.
    """
    known = [m for m in board.measures if m.better != "none"]
    directions: dict[str, set[str]] = {}
    for m in known:
        directions.setdefault(m.name, set()).add(m.better)
    known = [m for m in known if len(directions[m.name]) == 1]
    best = quality(board.scores)
    most = next((m for m in known if m.name == best), next((m for m in known if m.better == "higher"), None))
    costs = [m for m in known if m.better == "lower"]
    cost = next((m for m in costs if m.name == "memory.disk"), next(iter(costs), None))
    return known, cost, most


def verdicts(store: Store, run: Row) -> list[Verdict]:
    """What the gate rules of the run's own spec come to on it; none where it has no rules. Raises `WeighinError`."""
    wanted, looks = rules_of(run["spec"] if isinstance(run["spec"], dict) else {})
    return judge(store, wanted, run["run_id"], Bench(alpha=look_alpha(looks)))
