//! The atomic operations of the store, as Lua scripts. Each accesses the keys of one hash tag and a bounded number of
//! members.

use crate::redis::Script;

/// All scripts of the store.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) meta: Script,
    pub(super) archive: Script,
    pub(super) drop_empty: Script,
    pub(super) drop_pairs: Script,
    pub(super) forget: Script,
    pub(super) forget_seen: Script,
    pub(super) page: Script,
    pub(super) trend: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            meta: Script::new(META),
            archive: Script::new(ARCHIVE),
            drop_empty: Script::new(DROP_EMPTY),
            drop_pairs: Script::new(DROP_PAIRS),
            forget: Script::new(FORGET),
            forget_seen: Script::new(FORGET_SEEN),
            page: Script::new(PAGE),
            trend: Script::new(TREND),
        }
    }
}

/// Key: the meta. Arguments: the format version, the resolution and the digest of `user_key`, written if there are none.
/// Returns whether they were written, and the current values. It writes nothing if they exist, so that a server that
/// refuses writes can still be read. A meta of an earlier version has no digest; the script adds it if it can.
const META: &str = r"
local kept = redis.call('HMGET', KEYS[1], 'format', 'resolution', 'user_key')
if kept[1] and kept[2] then
  if not kept[3] then redis.pcall('HSET', KEYS[1], 'user_key', ARGV[3]) end
  return {0, kept[1], kept[2], kept[3] or ARGV[3]}
end
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'resolution', ARGV[2], 'user_key', ARGV[3])
return {1, ARGV[1], ARGV[2], ARGV[3]}
";

/// Key: the pairs of a segment. Arguments: the first slot to keep, and the maximum number of members to remove. Reading
/// and removing are one atomic step, so no member is removed whose slot was raised in between.
const ARCHIVE: &str = r"
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
if #old == 0 then return 0 end
return redis.call('ZREM', KEYS[1], unpack(old))
";

/// Key: the list of segments. Arguments: a segment and its score. Removes the segment if its score is unchanged, so if no
/// pairs were announced since.
const DROP_EMPTY: &str = r"
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
";

/// Key: the pairs of a segment. Arguments: the first and the last slot. Removes all pairs, and returns how many had a slot within
/// these. The server frees their memory in the background.
const DROP_PAIRS: &str = r"
local users = redis.call('ZCOUNT', KEYS[1], ARGV[1], ARGV[2])
redis.call('UNLINK', KEYS[1])
return users
";

/// Key: the pairs of a segment. Argument: a user. Removes the user and returns their slot, or nil if there is none.
const FORGET: &str = r"
local slot = redis.call('ZSCORE', KEYS[1], ARGV[1])
if slot then redis.call('ZREM', KEYS[1], ARGV[1]) end
return slot
";

/// Key: the pairs of a segment. Arguments: a user and a slot. Removes the user unless their slot is later, and returns their slot, or
/// nil if nothing was removed.
const FORGET_SEEN: &str = r"
local slot = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not slot or tonumber(slot) > tonumber(ARGV[2]) then return false end
redis.call('ZREM', KEYS[1], ARGV[1])
return slot
";

/// Key: the pairs of a segment. Arguments: the size of a page, the first slot, then users that were read before with
/// their slots, last one first. Continues after the first of these users that has not moved: members are ordered by slot
/// and name, so all members after it are unread, and all before it are read. If all have moved, it starts at the first
/// slot.
const PAGE: &str = r"
local from
for i = 3, #ARGV, 2 do
  local slot = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if slot and tonumber(slot) == tonumber(ARGV[i + 1]) then
    from = redis.call('ZRANK', KEYS[1], ARGV[i]) + 1
    break
  end
end
if not from then from = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[2]) end
return redis.call('ZRANGE', KEYS[1], from, from + ARGV[1] - 1, 'WITHSCORES')
";

/// Keys: the newest second, the fine bucket, the bucket of hours. Arguments: second, users, hour, the TTLs of the fine
/// bucket and of the other keys in milliseconds.
const TREND: &str = r"
local second, users, hour, keep_fine, keep_hours = unpack(ARGV)
redis.call('HSET', KEYS[2], second, users)
redis.call('PEXPIRE', KEYS[2], keep_fine)
local kept = redis.call('HGET', KEYS[3], hour)
if not kept or tonumber(string.match(kept, '^%d+')) <= tonumber(second) then
  redis.call('HSET', KEYS[3], hour, second .. ' ' .. users)
end
redis.call('PEXPIRE', KEYS[3], keep_hours)
local newest = redis.call('GET', KEYS[1])
if newest and tonumber(newest) > tonumber(second) then second = newest end
redis.call('SET', KEYS[1], second, 'PX', keep_hours)
return 1
";
