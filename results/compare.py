"""Two variants side by side, suite by suite and metric by metric, paired item by item."""

from collections.abc import Collection
from dataclasses import dataclass

from weighin.results.builds import further_builds, over_builds
from weighin.results.difference import Comparison, measure
from weighin.results.lookup import Side, side
from weighin.results.pairs import Pairs, Refusal, pair, pair_all
from weighin.results.store import Store

__all__ = [
    "Comparison",
    "Refusal",
    "Report",
    "compare",
    "compare_metric",
    "metrics_of",
    "missing",
    "pair_builds",
    "pair_sides",
]


@dataclass(frozen=True)
class Report:
    """What `compare` found; `notes` holds what the reader must know, such as a variant compared with itself."""

    a: Side
    b: Side
    comparisons: tuple[Comparison, ...]
    refusals: tuple[Refusal, ...]
    waived: tuple[str, ...]
    notes: tuple[str, ...]


def compare(store: Store, a: str, b: str, *, run: str | None = None, waive: Collection[str] = ()) -> Report:
    """Compare variant `b` with `a`: a positive drop means that `b` is worse.

    A name is a label of `run` (default: the newest), `RUN/LABEL`, or a variant key. What cannot be compared is listed
    in `refusals` with its reason, and with the fields that `waive` would have to name. Raises `WeighinError` for an
    unknown name.
    """
    with store.snapshot() as held:
        first, second = side(held, a, run), side(held, b, run)
        found = [
            outcome
            for suite in sorted(first.cells.keys() | second.cells.keys())
            for outcome in _suite(held, (first, second), suite, waive)
        ]
        runtimes = [_served_by(held, who) for who in (first, second)]
    comparisons = tuple(outcome for outcome in found if isinstance(outcome, Comparison))
    built = max((each.builds for each in comparisons), default=1)
    refusals = tuple(outcome for outcome in found if isinstance(outcome, Refusal))
    notes = (*_notes(first, second, built), *(note for note in runtimes if note and runtimes[0] != runtimes[1]))
    return Report(first, second, comparisons, refusals, tuple(sorted(waive)), notes)


def _suite(store: Store, sides: tuple[Side, Side], suite: str, waive: Collection[str]) -> list[Comparison | Refusal]:
    absent = [why for who in sides if (why := missing(who, suite))]
    if absent:
        return [Refusal(suite, "*", "; ".join(absent))]
    metrics = metrics_of(store, sides, suite)
    if further_builds(store, sides, suite):
        return [compare_metric(store, *sides, (suite, metric), waive) for metric in metrics]
    ids = [str(who.cells[suite].evaluation_id) for who in sides]
    paired = pair_all(store, suite, metrics, (ids[0], ids[1]), waive)
    return [each if isinstance(each, Refusal) else over_builds([measure(each)]) for each in paired]


def _notes(first: Side, second: Side, builds: int) -> tuple[str, ...]:
    if (first.run_id, first.name) == (second.run_id, second.name):
        return (f"{first.name} is compared with itself",)
    if first.variant_key is not None and first.variant_key == second.variant_key:
        return (f"{first.name} and {second.name} are the same checkpoint: any difference is noise of the measurement",)
    if builds > 1:
        return (f"recipes are compared: values are means of {builds} builds, whose spread is part of the limits",)
    return ()


def _served_by(store: Store, who: Side) -> str:
    """The managed environment that a variant was measured in, in words; empty for ours."""
    ids = [cell.evaluation_id for cell in who.cells.values() if cell.evaluation_id]
    rows = store.rows(
        """select distinct protocol->>'$.environment.name' as name from evaluations
           where list_contains(?, evaluation_id) and name is not null order by name""",
        [ids],
    )
    named = ", ".join(str(row["name"]) for row in rows)
    return f"{who.name} was measured in the environment {named}, whose packages are part of it" if named else ""


def missing(who: Side, suite: str) -> str | None:
    """Why `who` has no measured result of `suite`; None where it has one."""
    cell = who.cells.get(suite)
    if cell is None:
        return f"{who.name} was not measured"
    if cell.status != "ok" or cell.evaluation_id is None:
        return f"{who.name}: {suite} {cell.status}: {cell.reason or 'no reason was kept'}"
    return None


def metrics_of(store: Store, sides: tuple[Side, ...], suite: str) -> list[str]:
    """The metrics that either side has of `suite`, in order of name."""
    ids = [cell.evaluation_id for who in sides if (cell := who.cells.get(suite)) and cell.evaluation_id]
    rows = store.rows(
        "select distinct metric from metrics where list_contains(?, evaluation_id) order by metric", [ids]
    )
    return [row["metric"] for row in rows]


def compare_metric(
    store: Store, first: Side, second: Side, metric: tuple[str, str], waive: Collection[str] = ()
) -> Comparison | Refusal:
    """Compare one `(suite, metric)` that both sides measured; see `missing` for where one did not."""
    builds = pair_builds(store, (first, second), metric, waive)
    return builds if isinstance(builds, Refusal) else over_builds([measure(pairs) for pairs in builds])


def pair_builds(
    store: Store, sides: tuple[Side, Side], metric: tuple[str, str], waive: Collection[str] = ()
) -> list[Pairs] | Refusal:
    """The items of one `(suite, metric)` joined for the two sides themselves, and once more for each further build."""
    suite, name = metric
    found = [pair_sides(store, *sides, metric, waive)]
    for build in further_builds(store, sides, suite):
        if build.evaluations is None:
            return Refusal(suite, name, f"build {build.number} was not measured: {build.reason}")
        found.append(pair(store, suite, name, build.evaluations, waive))
    refused = next((each for each in found if isinstance(each, Refusal)), None)
    return refused or [each for each in found if isinstance(each, Pairs)]


def pair_sides(
    store: Store, first: Side, second: Side, metric: tuple[str, str], waive: Collection[str] = ()
) -> Pairs | Refusal:
    """The items of one `(suite, metric)` that both sides measured, joined."""
    suite, name = metric
    ids = [str(who.cells[suite].evaluation_id) for who in (first, second)]
    return pair(store, suite, name, (ids[0], ids[1]), waive)
