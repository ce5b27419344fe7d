-- What a stage cost in energy, the other checkpoints that went into it, and what loads the result.

alter table variants add column made_joules double;            -- NULL: nothing measured it
alter table variants add column made_joules_source varchar;    -- counter | modelled
alter table variants add column others json default '{}';      -- {"parameter": ["variant_key", ...]}

alter table identities add column loader varchar;              -- what loads it as it acts; NULL: not asked
