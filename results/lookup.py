"""Finding what a name means in a store: runs, variants, metrics. A wrong name says what is allowed."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from weighin.results.errors import WeighinError
from weighin.results.store import Store

_KEY_PREFIX = 8
"""Characters of a variant key that are enough to name it, where only one begins so."""


@dataclass(frozen=True)
class Cell:
    """A variant under a suite: its evaluation, or why there is none."""

    suite: str
    status: str
    reason: str | None
    evaluation_id: str | None


@dataclass(frozen=True)
class Side:
    """One variant of a comparison; `run_id` is None where it was named by its key."""

    name: str
    run_id: str | None
    variant_key: str | None
    cells: dict[str, Cell]


def unknown(what: str, name: str, allowed: Iterable[str]) -> WeighinError:
    """An error that names the likeliest other and everything that is allowed."""
    known = sorted(set(allowed))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return WeighinError(f"no {what} {name!r}.{hint} There is: {listed or 'none'}")


def run_named(store: Store, run: str | None) -> str:
    """`run`, or the newest run; raises where there is none of that name."""
    if run is None:
        newest = store.latest_run()
        if newest is None:
            raise WeighinError(f"{store.path}: holds no run yet; run `weighin run` first")
        return newest
    known = [row["run_id"] for row in store.rows("select run_id from runs")]
    if run not in known:
        raise unknown("run", run, known)
    return run


def side(store: Store, name: str, run: str | None = None) -> Side:
    """The variant called `name`: a label of `run` (default: the newest), of an imported run where only one has it,
    `RUN/LABEL`, or a variant key."""
    home = run_named(store, run)
    labels = _labels(store, home)
    if name in labels:
        return _of_run(store, name, home, labels[name])
    if taken := _imported(store, name):
        return taken
    if "/" in name:
        other, label = name.split("/", 1)
        other = run_named(store, other)
        known = _labels(store, other)
        if label not in known:
            raise unknown(f"variant of run {other}", label, known)
        return _of_run(store, label, other, known[label])
    keys = [row["variant_key"] for row in store.rows("select variant_key from variants")]
    matches = [key for key in keys if key == name or (len(name) >= _KEY_PREFIX and key.startswith(name))]
    if len(matches) == 1:
        return _of_key(store, matches[0])
    if matches:
        raise WeighinError(f"{len(matches)} variant keys begin with {name!r}; give more of it")
    raise unknown(f"variant of run {home}", name, labels)


def _imported(store: Store, name: str) -> Side | None:
    """The model of that label in an imported run; raises where several have one."""
    rows = store.rows(
        """select run_id, variant_key from labels join runs using (run_id) where label = ? and imported(spec)
           order by started_at desc, run_id""",
        [name],
    )
    if len(rows) > 1:
        listed = ", ".join(f"{row['run_id']}/{name}" for row in rows[:10])
        raise WeighinError(f"{name!r} is in {len(rows)} imported runs; name one of {listed}")
    return _of_run(store, name, rows[0]["run_id"], rows[0]["variant_key"]) if rows else None


def _labels(store: Store, run: str) -> dict[str, str | None]:
    rows = store.rows("select label, variant_key from labels where run_id = ? order by position", [run])
    return {row["label"]: row["variant_key"] for row in rows}


def _of_run(store: Store, label: str, run: str, key: str | None) -> Side:
    rows = store.rows(
        """select c.suite, coalesce(case when c.status = 'ok' then e.status end, c.status) as status,
               coalesce(c.reason, e.reason) as reason, e.evaluation_id
           from cells c left join evaluations e using (evaluation_id)
           where c.run_id = ? and c.label = ? order by c.suite""",
        [run, label],
    )
    return Side(label, run, key, {row["suite"]: Cell(**row) for row in rows})


def _of_key(store: Store, key: str) -> Side:
    rows = store.rows(
        """select suite, status, reason, evaluation_id from evaluations where variant_key = ?
           qualify row_number() over (partition by suite order by status <> 'ok', started_at desc) = 1
           order by suite""",
        [key],
    )
    (known,) = store.rows("select max(label) as label from labels where variant_key = ?", [key])
    shown = f"{known['label']} ({key[:20]}…)" if known["label"] else key[:20] + "…"
    return Side(shown, None, key, {row["suite"]: Cell(**row) for row in rows})


def split_metric(name: str) -> tuple[str, str]:
    """`SUITE.METRIC` as its two parts; a metric's own name may hold dots."""
    suite, dot, metric = name.partition(".")
    if not (suite and dot and metric):
        raise WeighinError(f"metric {name!r}: should read SUITE.METRIC, as in accuracy.acc")
    return suite, metric


def matching(metric: str, known: Iterable[str]) -> list[str]:
    """The metric of that name, or else every task's own: `acc` means `arc_easy/acc` and `piqa/acc`."""
    names = list(dict.fromkeys(known))
    return [metric] if metric in names else sorted(name for name in names if name.endswith("/" + metric))


def quality(rows: Iterable[dict[str, Any]]) -> str | None:
    """The metric that stands for quality among score rows, SUITE.METRIC: accuracy's first where more is better, else
    another suite's; none that depends on the runtime."""
    found = [
        (row["suite"] != "accuracy", row["suite"], row["place"], row["metric"])
        for row in rows
        if row["better"] == "higher" and row["value"] is not None and not row["runtime"] and row["beside"] is None
    ]
    return ".".join(min(found)[1::2]) if found else None


def one_metric(name: str, rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """The suite and the one metric that `name` means among score rows; raises where it is none or several."""
    suite, metric = split_metric(name)
    known = {(row["suite"], row["metric"]) for row in rows if row["metric"] != "*"}
    every = [f"{s}.{m}" for s, m in known]
    found = matching(metric, sorted(m for s, m in known if s == suite))
    if not found:
        raise unknown("metric", name, every)
    if len(found) > 1:
        raise WeighinError(f"metric {name!r} is one of several: {', '.join(f'{suite}.{m}' for m in found)}")
    return suite, found[0]
