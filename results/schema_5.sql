-- What another tool's file says of a machine or of a duration may be less than what we ask of ours: an unknown is NULL.

alter table machines alter column cores drop not null;
alter table machines alter column ram_bytes drop not null;
alter table evaluations alter column seconds drop not null;
