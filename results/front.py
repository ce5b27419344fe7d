"""The Pareto front of a run's variants in two or more objectives, with what the samples can and cannot tell.

Three classes. *On the front*: by their figures nobody beats them. *Possibly*: by their figures somebody does, but no
test shows it. *Dominated*: a paired test shows that one variant is better in every objective (`exclusion`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from weighin.results.errors import WeighinError
from weighin.results.exclusion import excluded
from weighin.results.lookup import one_metric, run_named, unknown
from weighin.results.objectives import Axis, Objective, axes_of, read_objective
from weighin.results.pareto import beats, nondominated
from weighin.results.stability import DRAWS, drawn, moves, stability
from weighin.results.statistics import Floats, Interval
from weighin.results.store import Store
from weighin.results.volume import Volume, change_since, knee_of, volume_of
from weighin.results.volume import in_words as volume_in_words

Row = Mapping[str, Any]
Place = Literal["on", "possibly", "dominated", "out"]

PLACES: dict[Place, str] = {
    "on": "on the front",
    "possibly": "possibly on it",
    "dominated": "confidently dominated",
    "out": "left out",
}
"""The classes in words, in the order in which they are shown."""
MOST_NAMES = 4
"""More than so many are only counted where a row is told in words."""
NOBODY = "no variant has all the figures"


@dataclass(frozen=True)
class View:
    """How a front is looked at; metrics are written SUITE.METRIC.

    `epsilon`: the difference within which two figures count as equal (see `Axis`). `reference`: the worst figures of
    interest, from where the hypervolume is reckoned. Both go over what the run's own spec says under `front`.
    `against`: the run whose hypervolume it is held against (default: the one before of the same spec). `waive`: fields
    of the protocol that may differ.
    """

    epsilon: Mapping[str, float] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    against: str | None = None
    waive: Collection[str] = ()
    draws: int = DRAWS
    seed: int = 0


@dataclass(frozen=True)
class FrontRow:
    """A variant and its place.

    `values` are its figures, one an axis, `limits` their 95 % intervals. `stability` is the share of bootstrap draws
    in which it is on the front: no probability. `by` names who is shown to dominate it, with the `p` of that, or else
    who beats its figures. `reason` says why it is left out.
    """

    variant: str
    place: Place
    values: tuple[float | None, ...]
    limits: tuple[Interval | None, ...]
    stability: float | None = None
    by: tuple[str, ...] = ()
    p: float | None = None
    reason: str | None = None

    @property
    def why(self) -> str:
        """What puts it there, in words; nothing for one on the front."""
        if self.place == "dominated":
            return f"by {self.by[0]}, p = {self.p:.2g}" if self.p else f"by {self.by[0]}, as counted"
        if self.place == "possibly":
            more = f" and {len(self.by) - MOST_NAMES} more" if len(self.by) > MOST_NAMES else ""
            return f"beaten by {', '.join(self.by[:MOST_NAMES])}{more}"
        return self.reason or ""


@dataclass(frozen=True)
class Front:
    """What `front` found; `knee` is a variant, `notes` say what the axes could not tell."""

    run: str
    axes: tuple[Axis, ...]
    rows: tuple[FrontRow, ...]
    volume: Volume
    knee: str | None
    notes: tuple[str, ...]

    def those(self, place: Place) -> list[FrontRow]:
        """The rows of one class."""
        return [row for row in self.rows if row.place == place]


@dataclass(frozen=True)
class _Entries:
    """Variants of a run: those inside with a row of `scores` an axis, the others with a reason."""

    labels: list[str]
    inside: dict[str, list[Row]]
    reasons: dict[str, str]
    figures: dict[str, tuple[tuple[float | None, ...], tuple[Interval | None, ...]]]

    def column(self, axis: int) -> list[Row]:
        return [rows[axis] for rows in self.inside.values()]


def front(store: Store, names: Sequence[str], run: str | None = None, view: View | None = None) -> Front:
    """Every variant of a run (default: the newest) with its place among `names`, in the spec's order.

    Only eligible figures of one checkpoint and of the run's machine enter: none that is missing, modelled or of a
    simulated format. Raises `WeighinError` for an unknown run or metric, one that is several or that has no better
    way, and for a tolerance or reference of a metric that is no axis.
    """
    view = view or View()
    with store.snapshot() as held:
        home = held.rows("select * from runs where run_id = ?", [run_named(held, run)])[0]
        scores = held.rows("select * from scores where run_id = ?", [home["run_id"]])
        settings = _settings(home, view, scores)
        axes = axes_of(names, scores, settings["epsilon"])
        _known(view, scores, axes)
        entries = _entries(held, home, axes)
        objectives = [read_objective(held, axis, entries.column(k), view.waive) for k, axis in enumerate(axes)]
        reference = [settings["reference"].get(axis.name) for axis in axes]
        prior, why = _prior(held, home, view)
        both = _joined(held, entries, axes, prior, view) if prior and None not in reference else []
    if not entries.inside:
        return Front(home["run_id"], axes, _placed(entries, (), None), Volume(None, reason=NOBODY), None, ())
    draws = drawn(objectives, view.draws, view.seed)
    volume = replace(volume_of(objectives, reference, draws), no_change=why)
    if prior and both:
        again = drawn(both, view.draws, view.seed)
        volume = change_since(volume, prior["run_id"], both, len(entries.inside), again)
    bend = knee_of(objectives, draws)
    knee = None if bend is None else list(entries.inside)[bend]
    rows = _placed(entries, objectives, draws)
    return Front(home["run_id"], axes, rows, volume, knee, tuple(_notes(objectives)))


def in_words(found: Front) -> list[str]:
    """Hypervolume, knee and notes, a sentence each."""
    knee = [f"Knee: {found.knee}."] if found.knee else []
    return [*volume_in_words(found.volume), *knee, *(f"{note}." for note in found.notes)]


def _settings(run: Row, view: View, scores: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Tolerances and reference point by metric: what the run's spec says, and over it what the view does."""
    spec = run["spec"].get("front") if isinstance(run["spec"], dict) else None
    found: dict[str, dict[str, float]] = {}
    for name, given in (("epsilon", view.epsilon), ("reference", view.reference)):
        said = spec.get(name) if isinstance(spec, dict) else None
        known = _named(said if isinstance(said, dict) else {}, scores, strict=False)
        found[name] = known | _named(given, scores, strict=True)
    return found


def _named(given: Mapping[str, float], scores: Sequence[Row], *, strict: bool) -> dict[str, float]:
    """By the metric's full name; what the run has not measured is passed over unless `strict`."""
    found = {}
    for name, value in given.items():
        try:
            found[".".join(one_metric(name, scores))] = float(value)
        except (WeighinError, ValueError, TypeError):
            if strict:
                raise
    return found


def _known(view: View, scores: Sequence[Row], axes: Sequence[Axis]) -> None:
    """What the view says of a metric that is no axis would be lost without a word."""
    names = [axis.name for axis in axes]
    for what, given in (("epsilon", view.epsilon), ("reference", view.reference)):
        for name in _named(given, scores, strict=True):
            if name not in names:
                raise unknown(f"axis of this front for the {what} of", name, names)


def _entries(store: Store, run: Row, axes: Sequence[Axis]) -> _Entries:
    rows = store.rows("select * from scores where run_id = ?", [run["run_id"]])
    labels = store.rows("select label from labels where run_id = ? order by position", [run["run_id"]])
    index = {(row["variant"], row["suite"], row["metric"]): row for row in rows}
    made = _Entries([label["label"] for label in labels], {}, {}, {})
    for label in made.labels:
        found = [index.get((label, a.suite, a.metric)) or index.get((label, a.suite, "*")) for a in axes]
        limits = tuple((row["ci_low"], row["ci_high"]) if row and row["ci_low"] is not None else None for row in found)
        made.figures[label] = tuple(row["value"] if row else None for row in found), limits
        reasons = [why for axis, row in zip(axes, found, strict=True) if (why := _absent(axis, row, run))]
        whole: list[Row] = [row for row in found if row is not None]
        if not reasons and len({row["variant_key"] for row in whole}) > 1:
            reasons = ["its figures belong to two checkpoints"]
        if reasons:
            made.reasons[label] = "; ".join(reasons)
        else:
            made.inside[label] = whole
    return made


def _joined(store: Store, entries: _Entries, axes: Sequence[Axis], prior: Row, view: View) -> list[Objective]:
    """The objectives of the variants now and, after them, of those of a prior run."""
    before = _entries(store, prior, axes)
    columns = [[*entries.column(k), *before.column(k)] for k in range(len(axes))]
    return [read_objective(store, axis, rows, view.waive) for axis, rows in zip(axes, columns, strict=True)]


def _absent(axis: Axis, row: Row | None, run: Row) -> str | None:
    """Why a variant has no figure on an axis that may enter."""
    if row is None:
        return f"{axis.name}: not measured"
    if not row["eligible"]:
        return f"{axis.name}: {row['reason'] or row['eligible_reason']}"
    if row["machine_key"] != run["machine_key"]:
        return f"{axis.name}: measured on another machine"
    if (row["unit"], row["better"], row["reduce"]) != (axis.unit, axis.better, axis.reduce):
        return f"{axis.name}: another metric of the same name"
    if axis.reduce == "exp_mean" and row["value"] <= 0:
        return f"{axis.name}: {row['value']:g} has no logarithm"
    return None


def _placed(entries: _Entries, objectives: Sequence[Objective], draws: Floats | None) -> tuple[FrontRow, ...]:
    found = {
        label: FrontRow(label, "out", *entries.figures[label], reason=why) for label, why in entries.reasons.items()
    }
    if draws is not None:
        labels = list(entries.inside)
        tolerance = np.array([objective.axis.tolerance for objective in objectives])
        points = np.column_stack([objective.axis.plain(objective.figures) for objective in objectives])
        on, steady = nondominated(points, tolerance), stability(draws, tolerance)
        for j, proof in enumerate(excluded(objectives, points)):
            label, figures, share = labels[j], entries.figures[labels[j]], float(steady[j])
            if on[j]:
                found[label] = FrontRow(label, "on", *figures, share)
            elif proof is not None:
                found[label] = FrontRow(label, "dominated", *figures, share, (labels[proof[0]],), proof[1])
            else:
                over = beats(points, points[[j]], tolerance)[:, 0]
                by = np.flatnonzero(over & on) if (over & on).any() else np.flatnonzero(over)
                found[label] = FrontRow(label, "possibly", *figures, share, tuple(labels[i] for i in by))
    return tuple(found[label] for label in entries.labels)


def _prior(store: Store, run: Row, view: View) -> tuple[Row | None, str | None]:
    """The run that the hypervolume is held against, or why there is none."""
    if view.against is not None:
        other = store.rows("select * from runs where run_id = ?", [run_named(store, view.against)])[0]
    else:
        found = store.rows(
            """select * from runs where spec_name = ? and status <> 'running' and (started_at, run_id) < (?, ?)
               order by started_at desc, run_id desc limit 1""",
            [run["spec_name"], run["started_at"], run["run_id"]],
        )
        if not found:
            return None, "no earlier run of this spec"
        other = found[0]
    if other["machine_key"] != run["machine_key"]:
        return None, f"run {other['run_id']} was weighed on another machine"
    return other, None


def _notes(objectives: Sequence[Objective]) -> list[str]:
    found = []
    for objective in objectives:
        name = objective.axis.name
        if objective.caveat is not None:
            found.append(f"{name} cannot show anybody dominated: {objective.caveat}")
        elif len(set(objective.kinds.tolist())) > 1 and objective.method != "counted":
            found.append(f"{name}: not all variants were measured on the same items under the same protocol")
        if objective.method != "counted" and not moves(objective):
            found.append(f"{name} stays as it is in every draw")
    return found
