"""A store of every release so far opens as one of this release, with all that it held."""

import hashlib
from pathlib import Path

import duckdb
import pytest

from tests.stores import ACC, evaluation, shares
from weighin.results import database
from weighin.results.database import MIGRATIONS, SCHEMA_VERSION
from weighin.results.merge import RULES, merge
from weighin.results.store import Store

RELEASED = {
    "schema.sql": "aa77fe58afc7093cca67a4578e904d764b4b83d101b123b577c43eb047d622f0",
    "schema_2.sql": "db59ed4692b438eb617a2393879dda4e85d229da42e8adcfa04b905eb9937e4b",
    "schema_3.sql": "4f793e27c4f1786fcfbedda82c057a020b089c88f98559f4cfd6c5f9428af575",
    "schema_4.sql": "767e242f0c37fccddad0321124a46ca77456d658494a4f4df91cb98bac4d798e",
    "schema_5.sql": "ebb227b5b858ad9dedd4926180102f4a0761ad1730d4d171135f41e56ab39ba8",
    "schema_6.sql": "f392a22a3638e8155d49e74068676eb079a89f001ff97a66a46f33255d848efb",
}
"""SHA-256 of each released step: stores that were written with it are out there, so it never changes again."""

# What a user of schema 1 had; every column that came later has a default or is unknown.
ROWS = """
insert into machines by name select 'm' as machine_key, 'host' as hostname, 'Linux' as os, 'cpu' as cpu, 2 as cores,
    8 as ram_bytes, null as gpu, '{}' as facts;
insert into variants by name select unnest(['base', 'small']) as variant_key, unnest([null, 'base']) as parent_key,
    'base' as root_key, unnest([null, 'gptq']) as stage, '{"bits": 4}' as params, unnest([0, 1]) as depth,
    timestamptz '2025-01-01' as made_at, 1.5 as made_seconds, 7 as made_peak_bytes, 'm' as made_on;
insert into identities by name select 'small' as variant_key, 'm' as machine_key, 10 as parameters, 20 as disk_bytes,
    20 as memory_bytes, '{"float32": 10}' as dtypes, 'dense' as form, 'aten::mm' as kernel, 0.5 as sparsity,
    null as distance, 'why' as distance_reason, '{}' as serving;
insert into runs by name select 'r' as run_id, '{}' as spec, 'spec' as spec_name, null as git_sha, '{}' as packages,
    'm' as machine_key, timestamptz '2025-01-02' as started_at, timestamptz '2025-01-03' as ended_at, 'ok' as status;
insert into labels by name select 'r' as run_id, unnest(['base', 'small']) as label, unnest([0, 1]) as position,
    unnest(['base', 'small']) as variant_key;
insert into evaluations by name select unnest(['e0', 'e1']) as evaluation_id, unnest(['k0', 'k1']) as evaluation_key,
    unnest(['base', 'small']) as variant_key, 'accuracy' as suite, '{}' as params, '{}' as protocol,
    'm' as machine_key, timestamptz '2025-01-02' as started_at, 2.5 as seconds, 'ok' as status, null as reason;
insert into metrics by name select unnest(['e0', 'e1']) as evaluation_id, 'acc' as metric, '1' as unit,
    'higher' as better, 'mean' as reduce, false as runtime;
insert into samples by name select e as evaluation_id, 'acc' as metric, 'item' || i as item, 0 as rep,
    'item' || i as cluster, (i % 4 > 0)::int as value, 1.0 as weight, 'measured' as source, null as reason,
    '{}' as detail from range(8) t(i), (select unnest(['e0', 'e1']) as e);
insert into cells by name select 'r' as run_id, unnest(['base', 'small']) as label, 'accuracy' as suite,
    'ok' as status, unnest(['e0', 'e1']) as evaluation_id, false as reused, null as reason, 'a.log' as log;
"""
LATER = {
    2: "update variants set made_joules = 3.5, made_joules_source = 'counter' where variant_key = 'small';"
    "update identities set loader = 'transformers';",
    3: "update samples set low = 0, high = 1 where item = 'item1';"
    "insert into calibrations values ('c', 0, 'm', 'accuracy', 'acc', 'plant', '>= 0', '1', null, 1, null, null, true,"
    " null, 'code', 1.0, now());",
    4: "update metrics set place = 3, beside = 'parent';"
    "insert into verdicts values ('j', 0, now(), 'r', null, 'accuracy.acc', '{}', 'pass', 'why', '[]', '{}', 1);"
    "insert into waivers values (now(), 'gate', 'accuracy.acc', 'e0', 'e1', '[]');",
    5: "update evaluations set seconds = null where evaluation_id = 'e1';",
}
"""What a user of each later schema could have besides: it comes through the steps after that one."""


@pytest.fixture(params=range(1, SCHEMA_VERSION + 1), ids="schema {}".format)
def release(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def old(release: int, tmp_path: Path) -> Path:
    """A store as a release with that schema wrote it; its views are its own."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("create table meta (key varchar primary key, value varchar not null)")
        con.execute("insert into meta values ('schema_version', ?), ('views', 'of then')", [str(release)])
        for name in MIGRATIONS[:release]:
            con.execute(database._sql(name))
        con.execute("create view scores as select 'of then' as variant")
        con.execute(ROWS)
        for step in range(2, release + 1):
            con.execute(LATER.get(step, ""))
    return path


def test_what_was_released_does_not_change(release: int) -> None:
    name = MIGRATIONS[release - 1]
    assert hashlib.sha256(database._sql(name).encode()).hexdigest() == RELEASED[name], (
        f"{name} is in stores already; write a new step"
    )


def test_all_that_an_old_store_held_is_there(release: int, old: Path) -> None:
    store = Store(old)
    scores = store.rows("select variant, value, n, status from scores order by variant")
    assert [(s["variant"], s["value"], s["n"]) for s in scores] == [("base", 0.75, 8), ("small", 0.75, 8)]
    card = store.rows("select * from variant_cards where variant = 'small'")[0]
    assert (card["parent"], card["params"], card["made_seconds"], card["sparsity"]) == ("base", {"bits": 4}, 1.5, 0.5)
    assert store.rows("select value from meta where key = 'schema_version'") == [{"value": str(SCHEMA_VERSION)}]
    small = store.variant("small")
    assert small is not None and small.others == {}
    assert (small.made_joules, small.made_joules_source) == ((3.5, "counter") if release >= 2 else (None, None))
    for table, since in (("calibrations", 3), ("verdicts", 4), ("waivers", 4)):
        assert store.rows(f"select count(*) as n from {table}") == [{"n": int(release >= since)}]
    metric = store.rows("select place, beside, neutral, signed from metrics where evaluation_id = 'e0'")[0]
    assert metric == {"place": 3, "beside": "parent", "neutral": 0.0, "signed": False} if release >= 4 else {
        "place": 0, "beside": None, "neutral": 0.0, "signed": False,
    }  # fmt: skip


def test_an_old_store_goes_on_being_written(old: Path) -> None:
    store = Store(old)
    store.add_evaluation(evaluation("new", "small"), shares([1, 1, 0], ACC), ("r", "small", "other"))
    assert store.rows("select n from scores where suite = 'other'") == [{"n": 3}]


def test_an_old_store_is_merged_from_a_copy(old: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    merge([old], tmp_path / "w.duckdb")
    assert old.read_bytes() == before
    Store(old).rows("select 1 as one")  # brought up to date in place
    merge([old], tmp_path / "same.duckdb")
    for table in (*RULES, "evaluations", "samples", "metrics", "evaluation_scores"):
        sql = f"select t::varchar as x from {table} t order by x"
        assert Store(tmp_path / "w.duckdb").rows(sql) == Store(tmp_path / "same.duckdb").rows(sql)
