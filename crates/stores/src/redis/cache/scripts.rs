//! The atomic operations of the cache, as Lua scripts.
//!
//! **The run id of a server.** A restarted Redis may come back with an older state, in which the counters lack the
//! latest notes. Each server process has a run id, so counters (and the note that the list of segments is complete)
//! carry the run id under which they were started. Under another run id they are invalid until they are started again.
//! The same holds for a promoted replica. Without permission for `INFO` there is no run id, and `pending` is always
//! unknown.

use crate::redis::Script;

/// All scripts of the cache.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) get: Script,
    pub(super) mark: Script,
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
            get: with_kept(GET),
            mark: with_life(MARK),
            put: with_kept(PUT),
            forget_counts: with_life(FORGET_COUNTS),
            list_head: with_life(LIST_HEAD),
            list_complete: with_life(LIST_COMPLETE),
            list_remove: with_life(LIST_REMOVE),
            lock: Script::new(LOCK),
            lock_release: Script::new(LOCK_RELEASE),
            note_run: Script::new(NOTE_RUN),
        }
    }
}

fn with_life(body: &str) -> Script {
    Script::new(format!("{LIFE}{body}"))
}

fn with_kept(body: &str) -> Script {
    with_life(&format!("{KEPT}{body}"))
}

const LIFE: &str = r"
local function life()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'run_id:(%w+)') or ''
end
";

/// Reads a count and its counters. Returns false without a count, else users, `as_of`, noted at the mark, and noted
/// now (false when unknown). A server that refuses writes (full disk, unavailable replicas) has also refused notes: an
/// `HDEL` without effect reveals that, since it is refused as well. It changes nothing, so it reaches neither replicas
/// nor the append-only file. Numbers stay strings, because Lua's numbers would lose digits.
const KEPT: &str = r"
local function takes_writes(pending_key)
  return type(redis.pcall('HDEL', pending_key, '')) == 'number'
end

local function kept(now, count_key, pending_key)
  local count = redis.call('HMGET', count_key, 'users', 'as_of', 'noted', 'epoch')
  if not count[1] then return false end
  local pending = redis.call('HMGET', pending_key, 'noted', 'epoch', 'life')
  local trusted = now ~= '' and pending[3] == now and pending[2] == count[4]
    and takes_writes(pending_key)
  return {count[1], count[2], count[3], trusted and (pending[1] or '0')}
end
";

/// Keys: the count and the pending counters of each segment, alternating. Returns the cached count of each segment.
const GET: &str = r"
local now = life()
local answers = {}
for i = 1, #KEYS, 2 do
  answers[#answers + 1] = kept(now, KEYS[i], KEYS[i + 1])
end
return answers
";

/// Key: the pending counters. Arguments: an epoch for new counters, their TTL in milliseconds. Returns the noted pairs
/// and the epoch.
const MARK: &str = r"
local pending = redis.call('HMGET', KEYS[1], 'noted', 'epoch', 'life')
local now = life()
local epoch = pending[2]
if not epoch or pending[3] ~= now then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'life', now)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {pending[1] or '0', epoch}
";

/// Keys: the count, the pending counters. Arguments: users, `as_of`, noted and epoch of the mark, window in seconds,
/// TTLs of the count and the counters in milliseconds, microseconds by which `as_of` may be ahead. Returns the cached
/// count. The counters store the windows of all counts and the result of the widest one, for `FORGET_COUNTS`. An `as_of`
/// too far ahead is set to now: otherwise the count would replace all later ones until that time.
const PUT: &str = r"
local users, as_of, noted, epoch, window = unpack(ARGV, 1, 5)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local latest = now + ARGV[8]
if tonumber(as_of) > latest then as_of = string.format('%.0f', now) end
local newest = redis.call('HGET', KEYS[1], 'as_of')
if newest and tonumber(newest) > tonumber(as_of) and tonumber(newest) <= latest then
  return kept(life(), KEYS[1], KEYS[2])
end
redis.call('HSET', KEYS[1], 'users', users, 'as_of', as_of, 'noted', noted, 'epoch', epoch)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('HSET', KEYS[2], 'window:' .. window, '1')
local widest = redis.call('HGET', KEYS[2], 'put_window')
if not widest or tonumber(widest) <= tonumber(window) then
  redis.call('HSET', KEYS[2], 'put_window', window, 'put_users', users,
    'put_noted', noted, 'put_epoch', epoch)
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return kept(life(), KEYS[1], KEYS[2])
";

/// Key: the pending counters. Removes them and returns the windows whose counts must be removed as well. Removes
/// nothing and returns false if the segment has users, or pairs were noted since its widest count.
const FORGET_COUNTS: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local pending = redis.call('HMGET', KEYS[1], 'noted', 'epoch', 'put_noted', 'put_epoch', 'put_users')
local nothing_since = (pending[1] or '0') == pending[3] and pending[2] == pending[4]
if pending[5] ~= '0' or not nothing_since then return false end
local windows = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  windows[#windows + 1] = string.match(field, '^window:(%d+)$')
end
redis.call('DEL', KEYS[1])
return windows
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

/// Key: the known segments. Arguments: a segment and its score. Removes the segment if its score is unchanged.
const LIST_REMOVE: &str = r"
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
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
