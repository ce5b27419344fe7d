"""One store out of several that machines wrote for themselves.

What a key names is content, so joining is a union: in any order, however often, the same stores come to the same rows.
Where one row was kept in several states (a run that was still going when its file was copied) the one that got
furthest stays; where two claim one key at the same stage, the whole row's order decides, never the order of the files.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from weighin.results.address import Address, place
from weighin.results.database import current, writing
from weighin.results.errors import StoreError

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 100
"""Files joined in one transaction; of more, groups are joined first."""

OWNED = ("metrics", "samples", "evaluation_scores")
"""Tables whose rows belong to an evaluation: they come with it, from one file."""


@dataclass(frozen=True)
class Rule:
    """Which rows of a table are the same one (`key`), and which of several states of it stays: first in `prefer`."""

    key: str
    prefer: str = "all_of_it"
    primary: bool = True
    """Whether `key` is the table's primary key, so that a row may replace another."""


RULES = {
    "machines": Rule("machine_key", "hostname, all_of_it"),
    "variants": Rule("variant_key", "made_at, all_of_it"),
    "identities": Rule("variant_key, machine_key", "loader is null, all_of_it"),
    "runs": Rule("run_id", "ended_at desc nulls last, all_of_it"),
    "labels": Rule("run_id, label", "variant_key is null, all_of_it"),
    "cells": Rule(
        "run_id, label, suite",
        "list_position(['ok', 'abstained', 'failed', 'running', 'planned'], status), evaluation_id is null, "
        "log is null, all_of_it",
    ),
    "builds": Rule("run_id, label, build, suite", "evaluation_id is null, all_of_it"),
    "calibrations": Rule("calibration_id, position"),
    "verdicts": Rule("judgement_id, position"),
    "waivers": Rule("waived_at, verb, metric, evaluation_a, evaluation_b, fields::varchar", primary=False),
}
"""Every table of rows that stand for themselves; a test holds this and the schema together."""


@dataclass(frozen=True)
class Merged:
    """What a merge added to the target, in rows."""

    runs: int
    evaluations: int
    samples: int


def merge(sources: Sequence[Path | str], into: Path | str, *, patience: float = 10.0) -> Merged:
    """Add everything that the stores `sources` hold to the store `into`, which is made where it is missing.

    One transaction: all of it is added or nothing. The sources are only read; one of an older release is brought up to
    date in a copy. Raises `StoreError` for a source that is missing, no store or of a newer release, and where one
    evaluation has two contents.
    """
    target, *given = [_file(name) for name in (into, *sources)]
    paths = list(dict.fromkeys(given))
    with TemporaryDirectory(prefix="weighin-merge-") as folder:
        ready = [_ready(path, Path(folder) / f"older-{n}", patience) for n, path in enumerate(paths) if path != target]
        while len(ready) > AT_ONCE:
            groups = [ready[at : at + AT_ONCE] for at in range(0, len(ready), AT_ONCE)]
            joined = [Path(folder) / f"group-{len(ready)}-{n}.duckdb" for n in range(len(groups))]
            for group, path in zip(groups, joined, strict=True):
                _join(group, path, patience)
            ready = joined
        return _join(ready, target, patience)


def _file(name: Path | str) -> Path:
    found = place(name)
    if isinstance(found, Address):
        raise StoreError(f"{found}: is a server; merge works on files: stop it, merge, start it again")
    return found.resolve()


def _ready(path: Path, copy: Path, patience: float) -> Path:
    """A file with this release's schema: the source itself, or a copy of it that was migrated."""
    with current(path, patience) as up_to_date:
        if up_to_date:
            return path
        copy.mkdir()
        for file in (path, path.with_name(path.name + ".wal")):  # while `current` holds it nobody writes
            if file.exists():
                shutil.copyfile(file, copy / file.name)
    with writing(copy / path.name, patience):
        pass
    return copy / path.name


def _join(sources: Sequence[Path], target: Path, patience: float) -> Merged:
    with writing(target, patience) as con:
        names = _attach(con, sources)
        before = _counts(con)
        if names:
            _refuse_two_contents(con, names, sources)
            _add_evaluations(con, names)
            for table, rule in RULES.items():
                con.execute(_union(table, rule, names, _target(con)))
        after = _counts(con)
    return Merged(*(b - a for a, b in zip(before, after, strict=True)))


def _attach(con: "duckdb.DuckDBPyConnection", sources: Sequence[Path]) -> list[str]:
    """The sources under names of their own, for reading only, as long as the connection lives."""
    names = [f"weighin_source_{n}" for n in range(len(sources))]
    for name, path in zip(names, sources, strict=True):
        quoted = str(path).replace("'", "''")
        con.execute(f"attach '{quoted}' as {name} (read_only)")
    return names


def _target(con: "duckdb.DuckDBPyConnection") -> str:
    """The target's own name, in full: a file may be called `main.duckdb`, and its tables' schema is `main`."""
    found = con.execute("select current_database()").fetchone()
    assert found is not None
    return '"' + str(found[0]).replace('"', '""') + '".main'


def _counts(con: "duckdb.DuckDBPyConnection") -> tuple[int, ...]:
    found = con.execute(
        "select (select count(*) from runs), (select count(*) from evaluations), (select count(*) from samples)"
    ).fetchone()
    assert found is not None
    return tuple(found)


def _all(names: Sequence[str], select: str) -> str:
    """`select` over every source, its place in the order where `{n}` stands and its name where `{source}` does."""
    return " union all by name ".join(select.format(n=n, source=name) for n, name in enumerate(names))


def _refuse_two_contents(con: "duckdb.DuckDBPyConnection", names: list[str], sources: Sequence[Path]) -> None:
    """An evaluation never changes once it is written: two contents under one id are somebody's mistake."""
    everywhere = [_target(con), *names]
    con.execute(
        f"""create or replace temp table shared_evaluations as
            select evaluation_id from ({_all(everywhere, "select evaluation_id from {source}.evaluations")})
            group by all having count(*) > 1"""
    )
    for table in ("evaluations", "metrics", "samples"):
        rows = _all(
            everywhere,
            f"""select {{n}} as place, evaluation_id, sum(hash(t)) as content from {{source}}.{table} t
                semi join shared_evaluations using (evaluation_id) group by evaluation_id""",
        )
        found = con.execute(
            f"""select evaluation_id, array_agg(place order by place) from ({rows})
                group by all having count(distinct content) > 1 order by evaluation_id limit 1"""
        ).fetchone()
        if found is not None:
            holders = ["the target" if place == 0 else str(sources[place - 1]) for place in found[1]]
            raise StoreError(
                f"evaluation {found[0]}: its {table} differ between {' and '.join(holders[:3])}; an evaluation never "
                "changes once it is written, so one of them was altered: leave it out"
            )


def _add_evaluations(con: "duckdb.DuckDBPyConnection", names: list[str]) -> None:
    """Evaluations that the target lacks, each with all that belongs to it from the first source that has it."""
    con.execute(
        f"""create or replace temp table fresh as
            select evaluation_id, min(place) as place
            from ({_all(names, "select evaluation_id, {n} as place from {source}.evaluations")})
            anti join evaluations using (evaluation_id) group by evaluation_id"""
    )
    for table in ("evaluations", *OWNED):
        rows = _all(
            names,
            f"""select t.*, {{n}} as place_, t.rowid as row_ from {{source}}.{table} t
                semi join (from fresh where place = {{n}}) using (evaluation_id)""",
        )
        con.execute(f"insert into {table} by name select * exclude (place_, row_) from ({rows}) order by place_, row_")


def _union(table: str, rule: Rule, names: Sequence[str], target: str) -> str:
    """Of every key the preferred row, where the target does not have just that."""
    rows = _all([target, *names], f"select * from {{source}}.{table}")
    verb = "insert or replace" if rule.primary else "insert"
    return f"""
        {verb} into {table} by name
        with every as (select distinct * from ({rows})), marked as (select *, every::varchar as all_of_it from every)
        select * exclude (all_of_it) from marked
        qualify row_number() over (partition by {rule.key} order by {rule.prefer}) = 1
        except from {target}.{table}"""
