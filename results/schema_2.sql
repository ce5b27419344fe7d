-- What a stage cost in energy, and the other checkpoints that went into it.

alter table variants add column made_joules double;            -- NULL: nothing measured it
alter table variants add column made_joules_source varchar;    -- counter | modelled
alter table variants add column others json default '{}';      -- {"parameter": ["variant_key", ...]}
