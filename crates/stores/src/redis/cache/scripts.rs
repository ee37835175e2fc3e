//! The atomic operations of the cache, as Lua scripts.
//!
//! **The run id of a server.** A restarted Redis may come back with an older state, in which the list of segments lacks
//! the latest notes. Each server process has a run id, so the note that the list is complete carries the run id under
//! which it was written, and is invalid under another one. The same holds for a promoted replica. Without permission for
//! `INFO` there is no run id, and the list is never complete.

use crate::redis::Script;

/// All scripts of the cache.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) put: Script,
    pub(super) forget_counts: Script,
    pub(super) list_head: Script,
    pub(super) list_complete: Script,
    pub(super) list_remove: Script,
    pub(super) lock: Script,
    pub(super) lock_release: Script,
    pub(super) note_run: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            put: Script::new(PUT),
            forget_counts: Script::new(FORGET_COUNTS),
            list_head: with_life(LIST_HEAD),
            list_complete: with_life(LIST_COMPLETE),
            list_remove: Script::new(LIST_REMOVE),
            lock: Script::new(LOCK),
            lock_release: Script::new(LOCK_RELEASE),
            note_run: Script::new(NOTE_RUN),
        }
    }
}

fn with_life(body: &str) -> Script {
    Script::new(format!("{LIFE}{body}"))
}

const LIFE: &str = r"
local function life()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'run_id:(%w+)') or ''
end
";

/// Key: the counts of a segment. Arguments: window in seconds, users, `as_of`, TTL in milliseconds, microseconds by which
/// `as_of` may be ahead. Returns the count that is stored now. An `as_of` too far ahead is set to now: otherwise the count
/// would replace all later ones until that time. Numbers stay strings, because Lua's numbers would lose digits.
const PUT: &str = r"
local window, users, as_of = unpack(ARGV, 1, 3)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local latest = now + ARGV[5]
if tonumber(as_of) > latest then as_of = string.format('%.0f', now) end
local kept = redis.call('HGET', KEYS[1], window)
local newest = kept and tonumber(string.match(kept, '%S+$'))
if newest and newest > tonumber(as_of) and newest <= latest then return kept end
local count = users .. ' ' .. as_of
redis.call('HSET', KEYS[1], window, count)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return count
";

/// Key: the counts of a segment. Removes them and returns 1 if the widest one has no users, else 0.
const FORGET_COUNTS: &str = r"
local counts = redis.call('HGETALL', KEYS[1])
local widest, users = 0, nil
for i = 1, #counts, 2 do
  local window = tonumber(counts[i])
  if window > widest then widest, users = window, string.match(counts[i + 1], '^%d+') end
end
if users ~= '0' then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Key: the known segments. Returns for how many milliseconds the list is still complete; 0 when it is not.
const LIST_HEAD: &str = r"
local now = life()
local whole_until = now ~= '' and redis.call('ZSCORE', KEYS[1], '\1complete:' .. now)
local time = redis.call('TIME')
if not whole_until then return 0 end
return math.max(0, math.floor(tonumber(whole_until) - (time[1] * 1000 + time[2] / 1000)))
";

/// Key: the known segments. Argument: for how many milliseconds the list is complete. The note is a member of the list
/// itself, so that it is lost together with the list. No segment has its name, which contains a control character.
const LIST_COMPLETE: &str = r"
local time = redis.call('TIME')
local whole_until = math.floor(time[1] * 1000 + time[2] / 1000) + ARGV[1]
redis.call('ZADD', KEYS[1], whole_until, '\1complete:' .. life())
return 1
";

/// Key: the known segments. Arguments: a segment and a score. Removes the segment if its score is not above that one.
const LIST_REMOVE: &str = r"
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) > tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
";

/// Key: the lock. Arguments: a token, the TTL of the lock in milliseconds. Returns whether the token holds the lock.
const LOCK: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Key: the last run. Argument: its TTL in milliseconds. A key with a longer TTL stays unchanged.
const NOTE_RUN: &str = r"
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1
";

/// Key: the lock. Argument: the holder's token.
const LOCK_RELEASE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
";
