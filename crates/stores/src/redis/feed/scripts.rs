//! The atomic operations of the feed, as Lua scripts. Keys: see [`keys`](super::keys), always in the same order.
//!
//! Numbers that may exceed the 53 bits of a Lua number (identifiers) are hexadecimal strings and are never computed with.
//! The times of Redis are microseconds.

use crate::redis::Script;

/// All scripts of the feed.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) append: Script,
    pub(super) check: Script,
    pub(super) read: Script,
    pub(super) end: Script,
    pub(super) trim: Script,
    pub(super) writers: Script,
    pub(super) size: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let with_feed = |body: &str| Script::new(format!("{FEED}{body}"));
        Self {
            append: with_feed(APPEND),
            check: with_feed(CHECK),
            read: with_feed(READ),
            end: with_feed(END),
            trim: with_feed(TRIM),
            writers: with_feed(WRITERS),
            size: with_feed(SIZE),
        }
    }
}

/// `feed(fresh)` returns the id of the feed and the number of its newest entry. If the state or the entries are missing,
/// everything is lost: the feed starts again with the id `fresh`. Every script begins with a call of it.
const FEED: &str = r"
local stream, state, writers, readers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function feed(fresh)
  local known = redis.call('HMGET', state, 'feed', 'last', 'before')
  if known[1] then
    local last = tonumber(known[2])
    local has_entries = last > tonumber(known[3])
    if not has_entries or redis.call('EXISTS', stream) == 1 then return known[1], last end
  end
  redis.call('DEL', stream, writers, readers)
  redis.call('HSET', state, 'feed', fresh, 'last', '0', 'token', '', 'bytes', '0',
    'before', '0', 'removed', '0')
  return fresh, 0
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function micros(number) return string.format('%.0f', number) end

local function last_of(writer)
  local known = redis.call('HGET', writers, writer)
  return known and tonumber(string.match(known, '^%d+'))
end

local function see(writer, last)
  redis.call('HSET', writers, writer, micros(last) .. ' ' .. micros(now()))
end

local function fields(entry)
  local named = {}
  for i = 1, #entry[2], 2 do named[entry[2][i]] = entry[2][i + 1] end
  return named
end

local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- Notes what was removed. Other scripts must not read an entry for that, because entries are large.
local function removed(last)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first then
    redis.call('HSET', state, 'before', micros(number(first) - 1), 'removed', fields(first).b)
  else
    redis.call('HSET', state, 'before', micros(last), 'removed', redis.call('HGET', state, 'bytes'))
  end
end

-- The response if the feed does not have a position.
local function expect(id, last, known, after, token)
  if known ~= id then return {'renewed', id} end
  local of_state = redis.call('HMGET', state, 'token', 'before')
  local before = tonumber(of_state[2])
  local is_known
  if after == last and after > before then
    is_known = of_state[1] == token
  else
    local at = redis.call('XRANGE', stream, micros(after) .. '-0', micros(after) .. '-0')[1]
    if at then
      is_known = fields(at).k == token
    else
      -- Somebody else may have trimmed the stream.
      removed(last)
      before = tonumber(redis.call('HGET', state, 'before'))
      is_known = after == before
    end
  end
  if is_known then return nil end
  return {'discontinued', id, micros(before), after < before and '1' or ''}
end

local function held()
  local known = redis.call('HMGET', state, 'bytes', 'removed')
  return tonumber(known[1]) - tonumber(known[2])
end
";

/// Arguments: a fresh id, the feed that the writer knows or '', the writer, its number, '1' to skip,
/// the token, the most bytes that the feed may hold, how long the keys are kept in milliseconds, the record.
///
/// A field `b` of each entry is the number of bytes of all entries before it, so that the size of the feed is the
/// difference of two numbers. Beside its record an entry takes about 75 bytes in Redis 7. A feed that no reader trims loses
/// its older half when it is full.
const APPEND: &str = r"
local id, last = feed(ARGV[1])
if ARGV[2] ~= '' and ARGV[2] ~= id then return {'renewed', id} end
local writer, sequence, skips = ARGV[3], tonumber(ARGV[4]), ARGV[5]
local own = last_of(writer)
if own and sequence <= own then
  see(writer, own)
  return {'ok', id, micros(now())}
end
if own and sequence > own + 1 and skips == '' then return {'lost', micros(own)} end
if held() > tonumber(ARGV[7]) then
  redis.call('XTRIM', stream, 'MAXLEN', math.floor(redis.call('XLEN', stream) / 2))
  removed(last)
end
last = last + 1
local size = #ARGV[9] + 75
local bytes = redis.call('HINCRBY', state, 'bytes', size) - size
redis.call('XADD', stream, micros(last) .. '-0',
  'w', writer, 'n', ARGV[4], 's', skips, 'k', ARGV[6], 'b', micros(bytes), 'r', ARGV[9])
redis.call('HSET', state, 'last', micros(last), 'token', ARGV[6])
see(writer, sequence)
for _, key in ipairs({stream, state, writers}) do redis.call('PEXPIRE', key, ARGV[8]) end
return {'ok', id, micros(now())}
";

/// Arguments: a fresh id, the feed that the writer knows or '', the writer, the number of its last entry.
const CHECK: &str = r"
local id = feed(ARGV[1])
if ARGV[2] ~= '' and ARGV[2] ~= id then return {'renewed', id} end
local own = last_of(ARGV[3])
if own then see(ARGV[3], own) end
if (own or 0) < tonumber(ARGV[4]) then return {'lost', micros(own or 0)} end
return {'ok', id, micros(now())}
";

/// Arguments: a fresh id, the feed, the number and the token of the position, and the most bytes to return. Reads the
/// entries in steps, because only the records tell how many bytes they have.
const READ: &str = r"
local id, last = feed(ARGV[1])
local refused = expect(id, last, ARGV[2], tonumber(ARGV[3]), ARGV[4])
if refused then return refused end
local time = micros(now())
local run_id = redis.pcall('INFO', 'server')
run_id = type(run_id) == 'string' and string.match(run_id, 'run_id:(%w+)') or ''
local after, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[5])
local entries, bytes = {}, 0
local from = after + 1
while from <= last and (#entries == 0 or bytes < max_bytes) do
  local step = redis.call('XRANGE', stream, micros(from) .. '-0', '+', 'COUNT', 16)
  if #step == 0 then break end
  for _, entry in ipairs(step) do
    if #entries > 0 and bytes >= max_bytes then break end
    local f = fields(entry)
    entries[#entries + 1] = {micros(number(entry)), f.k, f.w, f.n, f.s, f.r}
    bytes = bytes + math.max(#f.r, 1)
    from = number(entry) + 1
  end
end
return {'ok', id, micros(last), time, run_id, entries}
";

/// Argument: a fresh id.
const END: &str = r"
local id, last = feed(ARGV[1])
return {id, micros(last), redis.call('HGET', state, 'token')}
";

/// Arguments: a fresh id, the feed, the number and the token of the position, the reader, the idle times of writers and readers
/// in microseconds, how long the keys are kept in milliseconds.
const TRIM: &str = r"
local id, last = feed(ARGV[1])
local position = tonumber(ARGV[3])
local refused = expect(id, last, ARGV[2], position, ARGV[4])
if refused then return refused end
local time = now()
local function alive(key, idle)
  local known, left = redis.call('HGETALL', key), {}
  for i = 1, #known, 2 do
    local number, seen = string.match(known[i + 1], '^(%d+) (%d+)$')
    if time - tonumber(seen) >= idle then redis.call('HDEL', key, known[i])
    else left[#left + 1] = tonumber(number) end
  end
  return left
end
alive(writers, tonumber(ARGV[6]))
redis.call('HDEL', readers, ARGV[5])
local needed = position
for _, number in ipairs(alive(readers, tonumber(ARGV[7]))) do
  needed = math.min(needed, number)
end
redis.call('HSET', readers, ARGV[5], micros(position) .. ' ' .. micros(time))
if redis.call('XTRIM', stream, 'MINID', micros(needed)) > 0 then removed(last) end
for _, key in ipairs({stream, state, writers, readers}) do redis.call('PEXPIRE', key, ARGV[8]) end
return {'ok', id}
";

/// Argument: a fresh id.
const WRITERS: &str = r"
feed(ARGV[1])
return redis.call('HGETALL', writers)
";

/// Argument: a fresh id.
const SIZE: &str = r"
feed(ARGV[1])
return {redis.call('XLEN', stream), held()}
";
