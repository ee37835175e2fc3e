-- Names are compared byte by byte, whatever the database's own collation says: "é" in two forms is two names.

-- One row: what the rows of the other tables mean.
create table frame (
    id smallint primary key default 1 check (id = 1),
    resolution_seconds integer not null check (resolution_seconds > 0),
    trend_thinned_until bigint not null default (extract(epoch from now())::bigint / 3600 * 3600)
);
comment on column frame.resolution_seconds is 'length of a slot; seen_slot * this is unix time';
comment on column frame.trend_thinned_until is 'unix time before which the trend has one point an hour';

-- Rows stay when a segment has no pairs left: an id never changes its meaning.
create table segments (
    id integer generated always as identity primary key,
    name text collate "C" not null unique
);

-- The columns stand in an order that needs no padding. No foreign key: it would lock the segment's row once a pair.
create table pairs (
    seen_slot bigint not null,
    segment_id integer not null,
    user_id text collate "C" not null,
    primary key (segment_id, user_id)
) with (
    -- A count reads the index alone only where vacuum has marked the pages, so vacuum comes after a twentieth
    -- of the rows changed, not a fifth.
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
comment on column pairs.seen_slot is 'the latest slot in which the user was seen in the segment';
create index pairs_by_slot on pairs (segment_id, seen_slot);

create table trend (
    at timestamptz not null,
    users bigint not null,
    segment_id integer not null,
    window_seconds integer not null,
    primary key (segment_id, window_seconds, at)
);
-- Points come in the order of time, which is all that this small kind of index needs.
create index trend_by_time on trend using brin (at) with (pages_per_range = 16, autosummarize = on);
