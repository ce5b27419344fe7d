"""A large store to try the board on: `python -m benchmarks.big_store FILE`. What it costs there: `board_speed`.

500 variants of chains up to 5 stages in one run with 40 metrics of 40 items each, and 364 nights before it of 5
variants with 4 metrics of 28 items: 365 nights and about 1,000,000 samples. Every row is made by DuckDB itself, in
the store's own tables; scores are reckoned as the store does, by its own view.
"""

import argparse
import time
from pathlib import Path

from weighin.results.database import writing

VARIANTS, METRICS, ITEMS = 500, 40, 40
NIGHTS, NIGHTLY, NIGHT_METRICS, NIGHT_ITEMS = 364, 5, 4, 28

# A variant's skill falls with its number; the same items are hard for all, so that paired tests have something to see.
FILL = f"""
create temp table grid as
    select v.range as v, m.range as m from range({VARIANTS}) v, range({METRICS}) m;
insert into machines values ('m1', 'bench', 'Linux', 'cpu', 2, 8589934592, null, '{{"cpu": "cpu"}}');
insert into variants by name
    select 'key-' || v as variant_key, case when v = 0 then null when v % 5 = 1 then 'key-0' else 'key-' || (v - 1) end
        as parent_key, 'key-0' as root_key, 
        case when v > 0 then ['prune', 'gptq', 'lora', 'merge', 'int8'][1 + v % 5] end
        as stage, json_object('bits', 2 + v % 7) as params, case when v = 0 then 0 else 1 + (v - 1) % 5 end as depth,
        timestamptz '2026-01-01 00:00:00+00' as made_at, 1.0 + v % 60 as made_seconds, 1000000000 as made_peak_bytes,
        'm1' as made_on, 100.0 as made_joules, 'modelled' as made_joules_source, '{{}}'::json as others
    from range({VARIANTS}) r(v);
insert into identities by name
    select 'key-' || v as variant_key, 'm1' as machine_key, 135000000 as parameters,
        270000000 - 400000 * v as disk_bytes,
        540000000 - 400000 * v as memory_bytes, '{{"bfloat16": 135000000}}'::json as dtypes, 'dense' as form,
        'aten::mm' as kernel, 0.0 as sparsity, 0.1 as distance, '{{}}'::json as serving
    from range({VARIANTS}) r(v);
insert into runs
    select 'night-' || lpad(d::varchar, 3, '0'), '{{"gate": []}}', 'big', 'abc', json_object('torch', '2.' || d // 90),
        'm1', timestamptz '2026-01-01 02:00:00+00' + to_days(d::int),
        timestamptz '2026-01-01 03:00:00+00' + to_days(d::int),
        'ok' from range({NIGHTS + 1}) r(d);
insert into labels select 'night-{NIGHTS}', 'variant-' || v, v, 'key-' || v from range({VARIANTS}) r(v);
insert into labels
    select 'night-' || lpad(d.range::varchar, 3, '0'), 'variant-' || v.range, v.range, 'key-' || v.range
    from range({NIGHTS}) d, range({NIGHTLY}) v;
insert into evaluations
    select 'e-{NIGHTS}-' || v || '-' || s, 'k-' || v || '-' || s, 'key-' || v, 'suite' || s, '{{}}', '{{}}', 'm1',
        timestamptz '2027-01-01 02:00:00+00', 2.5, 'ok', null
    from range({VARIANTS}) r(v), range(8) q(s);
insert into evaluations
    select 'e-' || d.range || '-' || v.range || '-0', 'k-' || v.range || '-0', 'key-' || v.range, 'suite0', '{{}}',
        '{{}}', 'm1', timestamptz '2026-01-01 02:00:00+00' + to_days(d.range::int), 2.5, 'ok', null
    from range({NIGHTS}) d, range({NIGHTLY}) v;
insert into cells
    select 'night-' || lpad(split_part(evaluation_id, '-', 2), 3, '0'), 'variant-' || split_part(evaluation_id, '-', 3),
        suite, 'ok', evaluation_id, false, null, null from evaluations;
insert into metrics by name
    select evaluation_id, suite || '_metric' || m as metric, case when m = 4 then 's' else '1' end as unit,
        case when m = 4 then 'lower' else 'higher' end as better, 'mean' as reduce, m = 4 as runtime, m as place
    from evaluations, range(5) r(m) where m < {NIGHT_METRICS} or evaluation_id like 'e-{NIGHTS}-%';
insert into samples by name
    select evaluation_id, metric, 'item-' || i as item, 0 as rep, 'item-' || i as cluster,
        case when unit = 's' then 0.01 + hash(evaluation_id, i) % 1000 / 1e5
            when hash(metric, i) % 1000 + hash(evaluation_id, metric, i) % 100
                < 950 - split_part(evaluation_id, '-', 3)::int
            then 1.0 else 0.0 end as value,
        1.0 as weight, 'measured' as source,
        case when place = 0 then json_object('prompt', 'Question ' || i || '?', 'choices', [' yes', ' no'],
            'target', '0',
            'responses', [[-1.0, 1.0], [-2.0, 0.0]]) else '{{}}'::json end as detail
    from metrics, range({ITEMS}) r(i) where i < {NIGHT_ITEMS} or evaluation_id like 'e-{NIGHTS}-%';
insert into evaluation_scores from reckon(null);
"""


def make(path: Path) -> int:
    """Write the store; how many samples it has."""
    path.unlink(missing_ok=True)
    with writing(path, 10) as con:
        for statement in filter(str.strip, FILL.split(";\n")):
            con.execute(statement)
        return int((con.execute("select count(*) from samples").fetchone() or (0,))[0])


def main() -> None:
    """Make the store and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    print(f"{make(given.file):,} samples in {time.monotonic() - began:.1f} s, {given.file.stat().st_size >> 20} MiB")


if __name__ == "__main__":
    main()
