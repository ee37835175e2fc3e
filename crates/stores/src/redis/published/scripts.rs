//! The atomic operations of the published counts, as Lua scripts. Keys: see [`keys`](super::keys), always in the same order.
//!
//! Owners, tokens and counts may exceed the 53 bits of a Lua number: they are strings and are never computed with. The times
//! of Redis are microseconds.

use crate::redis::Script;

/// All scripts of the published counts.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) release: Script,
    pub(super) publish: Script,
    pub(super) load: Script,
    pub(super) follow: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let with_board = |body: &str| Script::new(format!("{BOARD}{body}"));
        Self {
            acquire: with_board(ACQUIRE),
            release: with_board(RELEASE),
            publish: with_board(PUBLISH),
            load: with_board(LOAD),
            follow: with_board(FOLLOW),
        }
    }
}

/// `board()` returns what the scripts need of the board; nil if there is none or a part of it was evicted.
///
/// Only `PUBLISH` makes the keys, together, and adds to them only if all of them exist. So the existence of the stream and
/// the token in `counts` prove that the three belong together.
const BOARD: &str = r"
local counts, tick, delta, lock, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function digits(number) return string.format('%.0f', number) end

local function board()
  local known = redis.call('HMGET', tick, 'fence', 'revision', 'entry', 'token', 'board', 'bytes')
  local is_whole = known[5] and redis.call('HGET', counts, '') == known[5]
    and redis.call('EXISTS', delta) == 1
  if not is_whole then return nil end
  return {
    fence = known[1], revision = tonumber(known[2]),
    entry = known[3], token = known[4], bytes = tonumber(known[6]),
  }
end

-- The newest tick and the position of the newest entry.
local function head(held)
  local known = redis.call('HMGET', tick, 'owner', 'as_of', 'at', 'address', 'window', 'complete')
  return {
    known[1], held.fence, held.entry, held.token,
    known[2], known[3], digits(now()), known[4], known[5], known[6],
  }
end

local function fields(entry)
  local named = {}
  for i = 1, #entry[2], 2 do named[entry[2][i]] = entry[2][i + 1] end
  return named
end
";

/// Arguments: the owner, the TTL of the lock and of the fence in milliseconds. Returns the fence, or false while another
/// owner holds the lock.
///
/// Fences are times of Redis, so that a fence that was lost is not used again.
const ACQUIRE: &str = r"
local owner = ARGV[1]
local holder = redis.call('GET', lock)
if holder and holder ~= owner then return false end
local known = redis.call('HMGET', fence, 'number', 'owner')
local number = known[1]
if known[2] ~= owner then
  local published = redis.call('HGET', tick, 'fence')
  number = digits(math.max(now(), tonumber(number or 0) + 1, tonumber(published or 0) + 1))
  redis.call('HSET', fence, 'number', number, 'owner', owner)
end
redis.call('PEXPIRE', fence, ARGV[3])
redis.call('SET', lock, owner, 'PX', ARGV[2])
return number
";

/// Argument: the owner.
const RELEASE: &str = r"
if redis.call('GET', lock) ~= ARGV[1] then return 0 end
return redis.call('DEL', lock)
";

/// Arguments: the fence, the revision, `as_of`, the address, the window in seconds, '1' if complete, '1' to replace all, a
/// token, how long the keys are kept in milliseconds, the most entries and bytes of changes, the changes as lines. Returns whether the tick is
/// published.
///
/// A field `b` of each entry is the number of bytes of all changes before it, so that the size of the stream is the
/// difference of two numbers. The first write is one that Redis refuses at its memory limit: later ones of a script are not
/// refused, so a tick is never half published. Sets are grouped, because `unpack` returns at most about 8,000 values.
const PUBLISH: &str = r"
local own_fence, revision, as_of, address, window, complete, replaces, token = unpack(ARGV, 1, 8)
local keep, max_entries, max_bytes, changes = unpack(ARGV, 9, 12)

local function apply()
  local sets = {}
  local function flush()
    if #sets > 0 then redis.call('HSET', counts, unpack(sets)) end
    sets = {}
  end
  for users, segment in string.gmatch(changes, '([^ \n]*) ([^\n]+)\n') do
    if users == '' then
      flush()
      redis.call('HDEL', counts, segment)
    else
      sets[#sets + 1] = segment
      sets[#sets + 1] = users
      if #sets >= 1000 then flush() end
    end
  end
  flush()
end

local function trim(bytes)
  local oldest = redis.call('XRANGE', delta, '-', '+', 'COUNT', 1)[1]
  if oldest and bytes - tonumber(fields(oldest).b) > tonumber(max_bytes) then
    redis.call('XTRIM', delta, 'MAXLEN', math.floor(redis.call('XLEN', delta) / 2))
  end
end

local known = redis.call('HMGET', fence, 'number', 'owner')
if known[1] ~= own_fence then return 0 end
local held = board()
local number = tonumber(revision)
local newest = held and held.fence == own_fence and held.revision
if newest == number then return 1 end
local follows
if not newest then follows = replaces ~= ''
elseif replaces ~= '' then follows = number > newest
else follows = number == newest + 1 end
if not follows then return 0 end

redis.call('HSET', tick, 'owner', known[2], 'fence', own_fence, 'revision', revision,
  'as_of', as_of, 'at', digits(now()), 'address', address, 'window', window,
  'complete', complete)
local bytes, logged = held and held.bytes, changes
if replaces ~= '' then
  -- Followers load the new board, so its first entry needs no changes.
  bytes, logged = 0, ''
  redis.call('DEL', counts, delta)
  redis.call('HSET', counts, '', token)
  redis.call('HSET', tick, 'board', token)
end
if replaces ~= '' or changes ~= '' then
  apply()
  trim(bytes)
  redis.call('XADD', delta, 'MAXLEN', '~', max_entries, own_fence .. '-' .. revision,
    'k', token, 'b', digits(bytes), 'c', logged)
  redis.call('HSET', tick, 'entry', revision, 'token', token, 'bytes', digits(bytes + #logged))
end
for _, key in ipairs({counts, tick, delta, fence}) do redis.call('PEXPIRE', key, keep) end
return 1
";

/// Returns the head and all fields of `counts`, or false without a board.
const LOAD: &str = r"
local held = board()
if not held then return false end
return {head(held), redis.call('HGETALL', counts)}
";

/// Arguments: the fence, the revision and the token of the position. Returns the head and the changes of each entry after
/// it, or false if the position is lost.
const FOLLOW: &str = r"
local held = board()
if not held or held.fence ~= ARGV[1] then return false end
-- Nothing new: the usual case, without reading an entry.
if held.entry == ARGV[2] and held.token == ARGV[3] then return {head(held), {}} end
local id = ARGV[1] .. '-' .. ARGV[2]
local at = redis.call('XRANGE', delta, id, id)[1]
if not at or fields(at).k ~= ARGV[3] then return false end
local changes = {}
for _, entry in ipairs(redis.call('XRANGE', delta, '(' .. id, '+')) do
  changes[#changes + 1] = fields(entry).c
end
return {head(held), changes}
";
