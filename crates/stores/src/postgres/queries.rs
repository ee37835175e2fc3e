//! SQL statements, except those for recording and archiving pairs, and for trends.

pub(super) const COUNT: &str = "select count(*) from pairs \
    where segment_id = (select id from segments where name = $1) and seen_slot between $2 and $3";

// `limit 1` forces one index lookup per segment, so that the planner does not choose to read all pairs.
pub(super) const SEGMENTS: &str = "select segments.name from segments cross join lateral ( \
        select from pairs where pairs.segment_id = segments.id \
        and pairs.seen_slot between $1 and $2 limit 1) as any_pair \
    order by segments.name";

// The primary key starts with the segment, so this needs one index lookup per segment.
pub(super) const MEMBERSHIPS: &str = "select segments.name, pairs.seen_slot \
    from pairs join segments on segments.id = pairs.segment_id \
    where pairs.segment_id = any (array(select id from segments)) and pairs.user_id = $1 \
    and pairs.seen_slot between $2 and $3 order by segments.name";

pub(super) const FORGET: &str = "with gone as (delete from pairs \
        where segment_id = any (array(select id from segments)) and user_id = $1 \
        returning seen_slot) \
    select count(*) from gone where seen_slot between $2 and $3";

pub(super) const FORGET_IN: &str = "with gone as (delete from pairs \
        where segment_id = (select id from segments where name = $1) and user_id = $2 \
        returning seen_slot) \
    select count(*) from gone where seen_slot between $3 and $4";

pub(super) const FORGET_SEEN: &str = "with gone as (delete from pairs \
        using unnest($2::text[], $3::int8[]) as seen(name, slot), segments \
        where segments.name = seen.name and pairs.segment_id = segments.id and pairs.user_id = $1 \
        and pairs.seen_slot <= seen.slot returning pairs.seen_slot) \
    select count(*) from gone where seen_slot between $4 and $5";

// In steps, so that no transaction is long. The row of the segment stays: an id never changes its meaning.
pub(super) const DROP_PAIRS: &str = "with gone as (delete from pairs where ctid = any (array( \
            select ctid from pairs where segment_id = (select id from segments where name = $1) limit $2)) \
        and segment_id = (select id from segments where name = $1) \
        returning seen_slot) \
    select count(*), count(*) filter (where seen_slot between $3 and $4) from gone";

pub(super) const DROP_TREND: &str =
    "delete from trend where segment_id = (select id from segments where name = $1)";

pub(super) const NOTE_ERASURE: &str =
    "insert into erasures (at_us, mark) values ($1, $2) on conflict do nothing";

pub(super) const ERASURES: &str = "select at_us, mark from erasures where at_us >= $1";

pub(super) const PRUNE_ERASURES: &str = "delete from erasures where at_us < $1";

pub(super) const EXPORT: &str = "select user_id, seen_slot from pairs \
    where segment_id = (select id from segments where name = $1) and seen_slot between $2 and $3";

pub(super) const PROPERTIES: &str =
    "select name, value from properties where starts_with(name, $1)";

pub(super) const SET_PROPERTY: &str = "insert into properties (name, value) values ($1, $2) \
    on conflict (name) do update set value = excluded.value";

pub(super) const REMOVE_PROPERTY: &str = "delete from properties where name = $1";

// Also the query of a ping.
pub(super) const KEY: &str = "select fingerprint_key from frame";

// The table has its one row since the setup. Of two processes, the second waits for the lock on the row, and then changes
// nothing.
pub(super) const OFFER_KEY: &str =
    "update frame set fingerprint_key = $1 where fingerprint_key is null";
