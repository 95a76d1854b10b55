-- Functions for scripts that read logs or the states of streams. An entry of a log has these fields: `t`, when it was written, in ms
-- after its epoch; `n` and `b`, the number of events and bytes that the log had taken in with this entry, trimmed ones included. The
-- difference between two entries is therefore the amount between them. `e` are the events, as one value in their wire form, and `k`
-- is their number if it is not one. The marker of a run counts as an event, so that a stream that runs again for ever is bounded too.
local MAX_SEQ = '18446744073709551615'

-- Returns a stored whole number, or `otherwise` if the value is none, so that a script does not stop halfway at a damaged key.
local function count(text, otherwise)
  local number = tonumber(text or '')
  if not number or number ~= number or number < 0 then
    return otherwise
  end
  return math.floor(math.min(number, 2 ^ 46))
end

local function id(epoch, seq)
  return int(epoch) .. '-' .. int(seq)
end

local function parts(text)
  local epoch, seq = string.match(text, '^(%d+)%-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

-- Returns whether id `a` is above id `b`.
local function above(a, b)
  local ae, as = parts(a)
  local be, bs = parts(b)
  return ae > be or (ae == be and as > bs)
end

-- Returns the higher of two ids. The second may be missing, or be no id.
local function highest(a, b)
  if b and string.match(b, '^%d+%-%d+$') and above(b, a) then
    return b
  end
  return a
end

local function field(entry, name)
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == name then
      return fields[i + 1]
    end
  end
end

-- The bytes of the entries that this call has loaded.
local loaded = 0

-- Returns the id of the log's newest entry that is no seal, and the number of events and bytes that the log has taken in. A key of
-- another type counts as no log. Loading a large entry takes long, so a second entry is loaded only if the newest is a seal.
-- O(events of that entry).
local function top(log)
  local events, bytes, before, newest = 0, 0, '+', nil
  for _ = 1, 3 do
    local entries = redis.pcall('XREVRANGE', log, before, '-', 'COUNT', 1)
    local entry = entries[1]
    if entries.err or not entry then
      break
    end
    loaded = loaded + #(field(entry, 'e') or '')
    if not newest then
      newest, events, bytes = entry[1], count(field(entry, 'n'), 0), count(field(entry, 'b'), 0)
    end
    if not field(entry, 's') then
      return entry[1], events, bytes
    end
    before = '(' .. entry[1]
  end
  return nil, events, bytes
end

-- Writes an entry without events: the marker of a run (`r`) or a seal (`s`). This fails if the log has a later entry; the later entry
-- then does what a seal would do.
local function mark(log, at, time, events, bytes, name, ...)
  local epoch = string.match(at, '^%d+')
  if name == 'r' then
    events = events + 1
  end
  redis.pcall('XADD', log, at, 't', int(time - tonumber(epoch)), 'n', int(events), 'b', int(bytes), name, ...)
end

-- Writes the marker of a new run of a stream that had runs before. The newest of them has the epoch `epoch` and ended at `previous`.
-- `since` is the lowest id that the marker makes known besides its own. If the run before made no event, its marker is removed and
-- the new one stands for both runs (`c`: since which one). So a stream that is only ever opened does not grow, and keeps its events.
-- `log_top`, `events` and `bytes` are those that `top` returned before.
-- Returns the number of events and bytes that the log has taken in. O(entries dropped).
local function begin_run(log, run, epoch, previous, since, max_events, time, log_top, events, bytes)
  local before = previous
  -- Remove the seals. The new marker fences the same producers.
  redis.pcall('XDEL', log, epoch .. '-' .. MAX_SEQ, id(tonumber(epoch) + 1, 0))
  if log_top == previous and log_top == epoch .. '-0' then
    local marker = redis.call('XRANGE', log, log_top, log_top)[1]
    if field(marker, 'r') then
      before, since, events = field(marker, 'r'), field(marker, 'c') or log_top, count(field(marker, 'n'), 1) - 1
      redis.call('XDEL', log, log_top)
    end
  end
  redis.pcall('XTRIM', log, 'MAXLEN', int(math.max(max_events, 1)))
  mark(log, id(run, 0), time, events, bytes, 'r', before, 'c', since)
  return events + 1, bytes
end

-- Stores metadata, up to 4096 bytes of names and values. Of the pairs in `list`, it stores those that fit, and replaces values that
-- are there already. O(fields of the stream).
local function keep(stream, list, from, to)
  if from > to then
    return
  end
  local held, size, fields = {}, 0, redis.call('HGETALL', stream)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'm:' then
      held[fields[i]] = fields[i + 1]
      size = size + #fields[i] - 2 + #fields[i + 1]
    end
  end
  for i = from, to, 2 do
    local name, value = 'm:' .. list[i], list[i + 1]
    local before = held[name] and #name - 2 + #held[name] or 0
    local after = size - before + #name - 2 + #value
    if after <= 4096 then
      redis.call('HSET', stream, name, value)
      held[name], size = value, after
    end
  end
end

-- Stores the settings of a stream that its producer's route determines: its voice, its turn, and the headers to keep.
local function tell_route(stream, voice, turn, headers)
  redis.call('HSET', stream, 'voice', voice)
  if turn ~= '' then
    redis.call('HSET', stream, 'turn', turn)
  end
  if headers ~= '' then
    redis.call('HSET', stream, 'headers', headers)
  end
end

-- Moves a stream's metadata to names with another prefix, and removes the metadata that had this prefix. `m:` is the metadata of the
-- newest run, `w:` that of the run before, in case the newest is withdrawn. O(fields of the stream).
local function move_metadata(stream, from, to)
  local fields, moved = redis.call('HGETALL', stream), {}
  for i = 1, #fields, 2 do
    local prefix = string.sub(fields[i], 1, 2)
    if prefix == from or prefix == to then
      redis.call('HDEL', stream, fields[i])
    end
    if prefix == from then
      moved[#moved + 1] = to .. string.sub(fields[i], 3)
      moved[#moved + 1] = fields[i + 1]
    end
  end
  for i = 1, #moved, 2 do
    redis.call('HSET', stream, moved[i], moved[i + 1])
  end
end

-- Writes a stream into its owner's index. The entry of an active stream is renewed only when half of its time has passed. So the
-- entries stay in the order in which the streams began, and beats cost little. O(log streams).
local function own(index, stream, expires, active, time)
  if not active then
    own_ended(index, stream, expires)
    return
  end
  local held = tonumber(redis.call('ZSCORE', index, stream) or 0)
  if held < ACTIVE + (time + expires) / 2 then
    own_active(index, stream, expires, time, true)
  end
end

-- Scores from LEASES to twice that are leases, not deadlines. Even ones are those of marked streams.
local LEASES = 2 ^ 52

local function lease_of(score)
  if score and score >= LEASES and score < 2 * LEASES then
    return int(score + 1 - score % 2)
  end
end

-- Returns a stream's deadline in an index, which is its own or that of its lease, or nil if there is none. O(log streams).
local function deadline_of(index, leases, stream)
  local score = tonumber(redis.call('ZSCORE', index, stream) or '')
  local lease = lease_of(score)
  if not lease then
    return score
  end
  local deadline = redis.pcall('ZSCORE', leases, lease)
  return type(deadline) == 'string' and tonumber(deadline) or nil
end

local function is_terminal(state)
  return state ~= 'active' and state ~= 'interrupted'
end

-- Returns whether a producer has begun to answer: it has reported its start, or has made an event.
local function has_started(flag, log_top)
  if flag == '1' then
    return true
  end
  local _, seq = parts(log_top or '0-0')
  return seq > 0
end

-- Returns whether a stream's hash is older than the run of `epoch`. Since epochs only rise, a failover then lost its registration.
local function is_before(held, epoch)
  return count(held, 2 ^ 46) < tonumber(epoch)
end

-- Returns the reply that fences the producer of `epoch`, or nil if it may write. `state` is not `gone`.
local function fence(state, held, epoch, completion)
  if held ~= epoch then
    return { 'newer' }
  end
  if state == 'active' then
    return nil
  end
  if state == 'interrupted' then
    return { 'newer' }
  end
  return { 'ended', redis.call('HGETALL', completion) }
end
