-- Base units only: s, B, J, 1, token/s, J/token. An unknown is NULL with a reason, never 0.
-- `samples` is the one place where a number is born; every aggregate is a view in views.sql.

create table machines (
    machine_key varchar primary key,      -- hash of what makes two machines comparable; no host name in it
    hostname varchar not null,
    os varchar not null,
    cpu varchar not null,
    cores integer not null,
    ram_bytes bigint not null,
    gpu varchar,                          -- NULL: none
    facts json not null                   -- everything the fingerprint was made of
);

create table variants (
    variant_key varchar primary key,      -- content key of the checkpoint
    parent_key varchar,                   -- NULL for a base
    root_key varchar not null,            -- the base at the start of the chain; itself for a base
    stage varchar,                        -- NULL for a base
    params json not null,                 -- the stage's parameters with defaults; a base's model, revision
    depth integer not null,               -- stages between the base and this
    made_at timestamptz not null,
    made_seconds double,                  -- NULL for a base
    made_peak_bytes bigint,               -- peak resident set of the process that made it
    made_on varchar                       -- machine_key
);

-- What a checkpoint turned out to be when it was reloaded from disk on a machine.
create table identities (
    variant_key varchar not null,
    machine_key varchar not null,
    parameters bigint not null,
    disk_bytes bigint not null,           -- weight files
    memory_bytes bigint not null,         -- resident weights after a forward, shared storage once
    dtypes json not null,                 -- {"bfloat16": elements, ...} after a forward
    form varchar not null,                -- dense | packed | simulated
    kernel varchar not null,              -- the operator that spent the most time on matrix products
    sparsity double not null,             -- share of zeros in the matrices
    distance double,                      -- |W - W_parent| / |W_parent|, Frobenius; NULL: see reason
    distance_reason varchar,
    serving json not null,                -- how it is served ({} for plain greedy decoding)
    primary key (variant_key, machine_key)
);

create table runs (
    run_id varchar primary key,
    spec json not null,
    spec_name varchar not null,
    git_sha varchar,
    packages json not null,
    machine_key varchar not null,
    started_at timestamptz not null,
    ended_at timestamptz,                 -- NULL: in flight, or killed
    status varchar not null               -- running | ok | failed
);

-- The name a spec gave a variant, in the order of the spec.
create table labels (
    run_id varchar not null,
    label varchar not null,
    position integer not null,
    variant_key varchar,                  -- NULL: a stage of its chain failed
    primary key (run_id, label)
);

create table evaluations (
    evaluation_id varchar primary key,
    evaluation_key varchar not null,      -- content key: variant, suite, parameters, code, data, versions, machine
    variant_key varchar not null,
    suite varchar not null,
    params json not null,
    protocol json not null,               -- what must be alike before two evaluations may be compared
    machine_key varchar not null,
    started_at timestamptz not null,
    seconds double not null,
    status varchar not null,              -- ok | abstained | failed
    reason varchar                        -- why not ok
);

create table metrics (
    evaluation_id varchar not null,
    metric varchar not null,
    unit varchar not null,
    better varchar not null,              -- higher | lower | none
    reduce varchar not null,              -- mean | exp_mean | median | sum | max
    runtime boolean not null,
    primary key (evaluation_id, metric)
);

create table samples (
    evaluation_id varchar not null,
    metric varchar not null,
    item varchar not null,                -- content hash or stable name: the key that samples are joined by
    rep integer not null,
    cluster varchar not null,             -- items that are not independent share one
    value double,                         -- NULL: not measured, see reason
    weight double not null,
    source varchar not null,              -- measured | counter | modelled | imported
    reason varchar,
    detail json not null
);

-- One square of a run's grid: a variant under a suite.
create table cells (
    run_id varchar not null,
    label varchar not null,
    suite varchar not null,
    status varchar not null,              -- planned | running | ok | abstained | failed
    evaluation_id varchar,                -- NULL: none was made
    reused boolean not null,              -- the store already held it
    reason varchar,
    log varchar,                          -- file with the libraries' own output
    primary key (run_id, label, suite)
);
