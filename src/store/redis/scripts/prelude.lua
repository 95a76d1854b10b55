-- For scripts that look at logs, or at how streams stand. A log's entries carry, besides what they hold, when they were written
-- (`t`, ms after their epoch) and how many events (`n`) and bytes (`b`) the log has taken in up to them: so whoever looks at two
-- entries knows how much lies between. Events (`e`) are one value, as they go over the wire; `k` says how many, where that is
-- not one. A run's marker counts as an event: what runs again for ever stays bounded.
local MAX_SEQ = '18446744073709551615'

-- A whole number that is stored, or `otherwise` if what is stored is none: whoever damaged a key gets no script that
-- stops halfway.
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

-- Whether id `a` is above id `b`.
local function above(a, b)
  local ae, as = parts(a)
  local be, bs = parts(b)
  return ae > be or (ae == be and as > bs)
end

-- The higher of two ids, where the second may be missing or no id at all.
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

-- Bytes of entries that were loaded.
local loaded = 0

-- The log's newest entry that is no seal, and how many events and bytes the log has taken in. A key of another type in
-- its place is no log. An entry may be large, and to load it takes long: a second one is looked at only behind a seal.
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

-- Writes an entry that holds no event: a run's marker (`r`) or a seal (`s`). A seal that comes too late has one before it.
local function mark(log, at, time, events, bytes, name, ...)
  local epoch = string.match(at, '^%d+')
  if name == 'r' then
    events = events + 1
  end
  redis.pcall('XADD', log, at, 't', int(time - tonumber(epoch)), 'n', int(events), 'b', int(bytes), name, ...)
end

-- Writes the marker of a new run of a stream that had runs before: `epoch` the newest, which ended at `previous`. `since`:
-- the lowest epoch that the marker makes known besides its own. A run before that made nothing leaves no marker, this one
-- stands for both (`c`: since which one), so that a stream which is only ever opened does not grow, and keeps its events.
-- `log_top`, `events`, `bytes`: of the log before that, as `top` gives them.
-- Returns how many events and bytes the log has taken in. O(entries dropped).
local function begin_run(log, run, epoch, previous, since, max_events, time, log_top, events, bytes)
  local before = previous
  -- The marker fences what the seal did.
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

-- Metadata, up to 4096 bytes of names and values; of names and values in a list, the pairs that fit are kept. What is
-- there already is replaced. O(fields of the stream).
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

-- What a producer's route says of a stream: its voice, the conversation that it is a turn of, the headers that it keeps.
local function tell_route(stream, voice, turn, headers)
  redis.call('HSET', stream, 'voice', voice)
  if turn ~= '' then
    redis.call('HSET', stream, 'turn', turn)
  end
  if headers ~= '' then
    redis.call('HSET', stream, 'headers', headers)
  end
end

-- Moves a stream's metadata to other names, in the place of what was kept under those: `m:` is the newest run's, `w:` that
-- of the run before, should the newest be withdrawn. O(fields of the stream).
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

-- Writes a stream into its owner's index. What an active stream has there is left as it is for half of its time, so that they
-- stand in the order in which they began, and beats cost little. O(log streams).
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

-- Scores from here on, up to twice this, are no deadlines but leases; even ones are of marked streams.
local LEASES = 2 ^ 52

local function lease_of(score)
  if score and score >= LEASES and score < 2 * LEASES then
    return int(score + 1 - score % 2)
  end
end

-- A stream's deadline in an index: its own, or that of the lease which it stands under; nil if there is none. O(log streams).
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

-- Whether a producer has begun to answer: it said so, or has made an event.
local function has_started(flag, log_top)
  if flag == '1' then
    return true
  end
  local _, seq = parts(log_top or '0-0')
  return seq > 0
end

-- Whether a stream's hash is from before the run of `epoch`: a failover lost that run's registration. Epochs only rise.
local function is_before(held, epoch)
  return count(held, 2 ^ 46) < tonumber(epoch)
end

-- What stands in the way of the producer of `epoch`; nil if nothing does. `state` is not `gone`.
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
