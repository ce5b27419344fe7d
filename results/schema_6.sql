-- Further builds of a run's variants, each with the seeds of its stages moved: how much a recipe owes to chance.

create table builds (
    run_id varchar not null,
    label varchar not null,
    build integer not null,               -- from 1 on; build 0 is the variant itself, under `cells`
    suite varchar not null,
    variant_key varchar not null,
    evaluation_id varchar,                -- NULL: none was made
    reason varchar,                       -- why not
    primary key (run_id, label, build, suite)
);
