-- Every aggregate of the samples is born here and nowhere else; statistics.py says the same in Python and a test
-- holds the two together. Intervals are two-sided, 95 %. This file is run whenever its text has changed.

-- Student's t quantile at 0.975, Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5); within 0.04 % for df >= 4.
create or replace macro t975(df) as
    1.959963984540054 + 2.372271230298562 / df + 2.8224986157396112 / df ** 2
    + 2.555849679507722 / df ** 3 + 1.5895340533938225 / df ** 4;

-- Limits of Wilson's score interval for a share p of n (Wilson 1927), exact at 0 and 1.
create or replace macro wilson_half(p, n) as
    1.959963984540054 * sqrt(greatest(p * (1 - p) / n + 0.9603647051735429 / n ** 2, 0));
create or replace macro wilson_low(p, n) as
    if(p = 0, 0, (p + 1.9207294103470858 / n - wilson_half(p, n)) / (1 + 3.8414588206941716 / n));
create or replace macro wilson_high(p, n) as
    if(p = 1, 1, (p + 1.9207294103470858 / n + wilson_half(p, n)) / (1 + 3.8414588206941716 / n));

-- log P(X = k) for X ~ Binomial(n, 1/2).
create or replace macro log_half_binomial(k, n) as
    lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) - n * 0.6931471805599453;

-- Whether a run's spec, or an evaluation's protocol, says that another tool measured it.
create or replace macro imported(told) as coalesce(json_exists(told, '$.origin'), false);

-- Sums of floats in an order of their own: as threads add them up the last bit changes from one reckoning to the next.
create or replace macro ordered_sum(xs) as list_aggregate(list_sort(xs), 'fsum');
create or replace macro ordered_mean(xs) as list_aggregate(list_sort(xs), 'favg');

-- One row an item: its repetitions are averaged first.
create or replace view item_values as
select
    evaluation_id, metric, item,
    min(cluster) as cluster,
    ordered_mean(list(value)) as value,
    coalesce(ordered_mean(list(weight) filter (where value is not null)), ordered_mean(list(weight))) as weight,
    ordered_mean(list(low)) as low,
    ordered_mean(list(high)) as high
from samples
group by all;

-- One row a metric of an evaluation (of all where `which` is NULL): its value, with its interval or the reason why it
-- has none.
create or replace macro reckon(which) as table
with items as materialized (
    from item_values where which is null or evaluation_id = which
),
provenance as (
    select
        evaluation_id, metric,
        case when count(distinct source) = 1 then min(source) else 'mixed' end as source,
        bool_or(source = 'modelled') as modelled,
        arg_min(reason, rowid) filter (where value is null and reason is not null) as first_reason,
        any_value(reason) filter (where value is not null and source = 'imported') as remark
    from samples
    where which is null or evaluation_id = which
    group by all
),
counted as (
    select
        evaluation_id, metric,
        count(value) as n,
        count(*) - count(value) as unscored,
        count(distinct cluster) filter (where value is not null) as clusters,
        ordered_sum(list(weight) filter (where value is not null)) as total_weight,
        ordered_sum(list(weight * value)) / nullif(total_weight, 0) as weighted,
        -- one figure is itself, to the last bit
        if(weighted is not null and min(value) = max(value), min(value), weighted) as mean,
        median(value) as median,
        ordered_sum(list(value)) as sum,
        min(value) as min,
        max(value) as max,
        -- the limits that a figure of the whole set brings along
        if(count(value) = 1, min(low), null) as own_low,
        if(count(value) = 1, max(high), null) as own_high,
        bool_and(value in (0, 1) and weight = 1) filter (where value is not null) as zero_or_one
    from items
    group by all
),
reduced as (
    select
        m.evaluation_id, m.metric, m.unit, m.better, m.reduce, m.runtime, m.place, m.beside, m.neutral,
        if(c.own_low is null, coalesce(c.n, 0), c.total_weight::bigint) as n,
        coalesce(c.unscored, 0) as unscored,
        coalesce(c.clusters, 0) as clusters,
        c.total_weight, c.mean, c.min, c.max, c.own_low, c.own_high,
        coalesce(c.zero_or_one, false) and m.reduce = 'mean' and m.unit = '1' and not m.signed as shares,
        case m.reduce
            when 'mean' then c.mean
            when 'exp_mean' then exp(c.mean)
            when 'median' then c.median
            when 'sum' then c.sum
            when 'max' then c.max
        end as value,
        p.source, coalesce(p.modelled, false) as modelled, p.first_reason, p.remark
    from metrics m
    left join counted c using (evaluation_id, metric)
    left join provenance p using (evaluation_id, metric)
    where which is null or m.evaluation_id = which
),
-- which interval a value can have, and why it has none
planned as materialized (
    select
        *,
        case
            when value is null or not isfinite(value) then 'no value'
            when own_low is not null then null
            when n = 1 then coalesce(remark, 'one value')
            when reduce = 'sum' then 'no interval for a sum'
            when reduce = 'max' then 'no interval for a maximum'
            when reduce = 'median' and clusters < n then 'no interval for the median of clustered items'
            when reduce = 'median' and n < 6 then 'fewer than 6 items'
            when reduce = 'median' then null
            when shares and clusters = n then null
            when clusters < 5 and clusters = n then 'fewer than 5 items'
            when clusters < 5 then 'fewer than 5 clusters'
            when shares then null
            when min = max then 'all values are equal'
        end as no_interval,
        case
            when own_low is not null then 'the suite''s own'
            when reduce = 'median' then 'order statistics'
            when shares and clusters = n then 'Wilson'
            -- no spread to estimate: as if a cluster were one item, the widest it can honestly be
            when shares and min = max then 'Wilson on clusters'
            else 'cluster-robust t'
        end as method
    from reduced
),
-- cluster-robust standard error of a weighted mean: linearised residuals w (v - mean) summed per cluster, with the
-- small-sample factor G / (G - 1) (CR1; Cameron & Miller 2015, section VI)
clustered as (
    select
        p.evaluation_id, p.metric, i.cluster, ordered_sum(list(i.weight * (i.value - p.mean))) as residual
    from items i
    join planned p using (evaluation_id, metric)
    where p.method = 'cluster-robust t' and p.no_interval is null and i.value is not null
    group by p.evaluation_id, p.metric, i.cluster
),
errors as (
    select
        evaluation_id, metric,
        sqrt(count(*) / (count(*) - 1.0) * ordered_sum(list(residual * residual))) as total_error
    from clustered
    group by all
),
-- distribution-free interval of a median: the outermost order statistics whose exact binomial tail stays under 2.5 %
-- (Conover 1999, section 3.2)
ranked as (
    select
        i.evaluation_id, i.metric, i.value,
        row_number() over (partition by i.evaluation_id, i.metric order by i.value, i.item) as rank,
        count(*) over (partition by i.evaluation_id, i.metric) as n
    from items i
    join planned p using (evaluation_id, metric)
    where p.method = 'order statistics' and p.no_interval is null and i.value is not null
),
tails as (
    select
        evaluation_id, metric, value,
        sum(exp(log_half_binomial(rank - 1, n))) over (partition by evaluation_id, metric order by rank) as low_tail,
        sum(exp(log_half_binomial(n - rank, n))) over (partition by evaluation_id, metric order by rank desc)
            as high_tail
    from ranked
),
medians as (
    select
        evaluation_id, metric,
        max(value) filter (where low_tail < 0.025) as ci_low,
        min(value) filter (where high_tail < 0.025) as ci_high
    from tails
    group by all
),
bounds as (
    select
        p.*,
        case p.method
            when 'the suite''s own' then p.own_low
            when 'order statistics' then m.ci_low
            when 'Wilson' then wilson_low(p.mean, p.n)
            when 'Wilson on clusters' then wilson_low(p.mean, p.clusters)
            else p.mean - t975(nullif(p.clusters - 1, 0)) * e.total_error / p.total_weight
        end as low,
        case p.method
            when 'the suite''s own' then p.own_high
            when 'order statistics' then m.ci_high
            when 'Wilson' then wilson_high(p.mean, p.n)
            when 'Wilson on clusters' then wilson_high(p.mean, p.clusters)
            else p.mean + t975(nullif(p.clusters - 1, 0)) * e.total_error / p.total_weight
        end as high
    from planned p
    left join errors e using (evaluation_id, metric)
    left join medians m using (evaluation_id, metric)
),
scaled as (
    select
        *,
        case when own_low is not null then low when reduce = 'exp_mean' then exp(low) when shares then greatest(low, 0) else low end as ci_lower,
        case when own_low is not null then high when reduce = 'exp_mean' then exp(high) when shares then least(high, 1) else high end as ci_upper,
        no_interval is null and isfinite(ci_lower) and isfinite(ci_upper) as known
    from bounds
)
select
    evaluation_id, metric, unit, better, reduce, runtime, place, beside, neutral, n, unscored, clusters,
    case when isfinite(value) then value end as value,
    case when known then ci_lower end as ci_low,
    case when known then ci_upper end as ci_high,
    case when not known then coalesce(no_interval, 'not finite') end as ci_reason,
    case when known then method end as ci_method,
    case when isfinite(value) then 'ok' else 'abstained' end as status,
    case
        when isfinite(value) then null
        when value is not null then 'not finite'
        else coalesce(first_reason, 'no sample')
    end as reason,
    source, modelled
from scaled;

-- The same, kept: an evaluation never changes once it is written, and a page must not reckon a year of them anew.
-- The store adds an evaluation's rows in the transaction that writes its samples.
create or replace table evaluation_scores as from reckon(null);

-- What everybody reads: one row a variant, suite and metric of a run; '*' stands for a cell that gave no metric.
create or replace view scores as
with grid as (
    select
        c.run_id, c.label as variant, l.position, coalesce(e.variant_key, l.variant_key) as variant_key, c.suite,
        coalesce(e.machine_key, r.machine_key) as machine_key, c.evaluation_id, e.evaluation_key,
        c.status as cell_status, e.status as evaluation_status, coalesce(c.reason, e.reason) as cell_reason, c.reused
    from cells c
    left join labels l using (run_id, label)
    left join runs r using (run_id)
    left join evaluations e using (evaluation_id)
),
judged as (
    select g.*, s.* exclude (evaluation_id)
    from grid g
    left join evaluation_scores s
        on s.evaluation_id = g.evaluation_id and g.cell_status = 'ok' and g.evaluation_status = 'ok'
    where g.cell_status in ('ok', 'abstained', 'failed')
)
select
    j.run_id, j.variant, j.position, j.variant_key, j.suite,
    coalesce(j.metric, '*') as metric,
    j.unit, coalesce(j.better, 'none') as better, j.reduce, coalesce(j.runtime, false) as runtime,
    coalesce(j.place, 0) as place, j.beside, j.neutral,
    coalesce(j.n, 0) as n, coalesce(j.unscored, 0) as unscored, coalesce(j.clusters, 0) as clusters,
    j.value, j.ci_low, j.ci_high,
    coalesce(j.ci_reason, case when j.metric is null then 'no value' end) as ci_reason, j.ci_method,
    case
        when j.metric is not null then j.status
        when j.cell_status <> 'ok' then j.cell_status
        when j.evaluation_status is null then 'failed'
        when j.evaluation_status <> 'ok' then j.evaluation_status
        else 'abstained'
    end as status,
    case
        when j.metric is not null then j.reason
        when j.cell_reason is not null then j.cell_reason
        when j.cell_status = 'ok' and j.evaluation_status is null then 'its evaluation is missing from the store'
        when j.cell_status = 'ok' and j.evaluation_status = 'ok' then 'the suite yielded no sample'
        else 'no reason was kept'
    end as reason,
    j.source, j.machine_key, j.evaluation_id, j.evaluation_key, i.form, i.kernel,
    -- whether the figure may enter a front or a gate, and why not
    case
        when j.value is null then 'not measured'
        when j.modelled then 'modelled'
        when j.runtime and i.form = 'simulated' then 'dense kernel: the runtime simulates this format'
    end as eligible_reason,
    eligible_reason is null as eligible,
    j.reused
from judged j
left join identities i on i.variant_key = j.variant_key and i.machine_key = j.machine_key;

-- Each instrument's newest try on each machine.
create or replace view instruments as
select * from calibrations
qualify row_number() over (partition by machine_key, suite, instrument, plant order by tried_at desc, position desc) = 1;

-- One row a suite and machine: whether its instruments recovered what was planted.
create or replace view calibrated as
with counted as (
    select
        machine_key, suite, count(*) as tried, count(*) filter (where not passed) as failed,
        max(tried_at) as tried_at, arg_max(code, tried_at) as code
    from instruments
    group by machine_key, suite
)
select *, if(failed = 0, 'proven', failed || ' of ' || tried || ' instruments failed') as verdict from counted;

-- The newest of ours; what was imported only where there is nothing else.
create or replace view latest_run as
select * from runs order by imported(spec), started_at desc, run_id desc limit 1;

-- The newest run only.
create or replace view latest_scores as
select s.* from scores s join latest_run using (run_id);

-- One row a variant of a run: how it was made and what it turned out to be on the run's machine.
create or replace view variant_cards as
select
    l.run_id, l.label as variant, l.position, l.variant_key,
    (select min(p.label) from labels p where p.run_id = l.run_id and p.variant_key = v.parent_key) as parent,
    v.parent_key, v.root_key, v.stage, v.params, v.depth, v.made_at, v.made_seconds, v.made_peak_bytes, v.made_on,
    v.made_joules, v.made_joules_source, v.others,
    r.machine_key, i.parameters, i.disk_bytes, i.memory_bytes, i.dtypes, i.form, i.kernel, i.sparsity,
    i.distance, i.distance_reason, i.serving, i.loader,
    case when l.variant_key is null then 'failed' else 'ok' end as status
from labels l
left join runs r using (run_id)
left join variants v on v.variant_key = l.variant_key
left join identities i on i.variant_key = l.variant_key and i.machine_key = r.machine_key;
