-- A sample of a whole set (an AUROC, a p99) brings an interval of its own; what instruments recovered of planted truth.

alter table samples add column low double;                     -- NULL: the interval is reckoned from the samples
alter table samples add column high double;

-- A difference of shares: where its values happen to be 0 and 1 only it is no share, and may lie below 0.
alter table metrics add column signed boolean default false;

create table calibrations (
    calibration_id varchar not null,      -- one call of `weighin calibrate`
    position integer not null,            -- order within the call
    machine_key varchar not null,
    suite varchar not null,
    instrument varchar not null,          -- what was tried: "exposure"
    plant varchar not null,               -- what was planted: "64 copies"
    target varchar not null,              -- what it has to recover: ">= 8 bit"
    unit varchar not null,
    planted double,                       -- NULL: the target is no number
    recovered double,                     -- NULL: see reason
    low double,                           -- interval of the recovered value; NULL: exact, or see reason
    high double,
    passed boolean not null,
    reason varchar,
    code varchar not null,                -- hash of the suite's code and of its plants
    seconds double not null,              -- what the plant took
    tried_at timestamptz not null,
    primary key (calibration_id, position)
);
