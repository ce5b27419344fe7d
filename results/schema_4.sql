-- What a metric is held against within its own evaluation, in which order a suite names its metrics; kept verdicts.

alter table metrics add column place integer default 0;        -- order in which the suite names them: the first leads
alter table metrics add column beside varchar;                 -- 'parent' or 'root': the figure compares with it already
alter table metrics add column neutral double default 0;       -- its value where nothing changed, if it compares

create table verdicts (
    judgement_id varchar not null,        -- one call of the gate
    position integer not null,            -- order of the rules' metrics
    judged_at timestamptz not null,
    run_id varchar not null,
    against_run varchar,                  -- the run that the other variant is of; NULL: the same
    metric varchar not null,              -- SUITE.METRIC
    rule json not null,                   -- as the spec has it
    outcome varchar not null,             -- pass, fail, inconclusive
    why varchar not null,
    waived json not null,                 -- fields of the protocol that differ and were allowed to
    evidence json not null,               -- the comparison's figures
    look integer not null,                -- 1, or which look at a growing number of items
    primary key (judgement_id, position)
);

create table waivers (
    waived_at timestamptz not null,
    verb varchar not null,                -- compare or gate
    metric varchar not null,              -- SUITE.METRIC
    evaluation_a varchar not null,
    evaluation_b varchar not null,
    fields json not null                  -- what differed in the protocols and was allowed to
);
