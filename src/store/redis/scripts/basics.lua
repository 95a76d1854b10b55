-- The clock, the lifetimes of keys, and the indexes. A server runs these lines at each call of a script, and each function
-- costs it some 30 ns: what is not needed for a plain opening or end stands in prelude.lua.
local function int(number)
  return string.format('%d', number)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A stream's fields. A key of another type in its place is no stream: whoever registers one replaces it.
local function look(stream, ...)
  local held = redis.pcall('HMGET', stream, ...)
  if held.err then
    return {}
  end
  return held
end

local function expire(ttl, ...)
  ttl = int(math.min(ttl, 2 ^ 46))
  for _, key in ipairs({ ... }) do
    redis.call('PEXPIRE', key, ttl)
  end
end

-- Lets an index live for so long at least; a sixteenth longer where it would not, so that few calls have to write that. O(1).
local function outlive(index, ttl)
  if redis.call('PTTL', index) < ttl then
    redis.call('PEXPIRE', index, int(math.min(ttl + ttl / 16, 2 ^ 46)))
  end
end

-- Puts a stream into an index of deadlines, which outlives it. O(log streams).
local function watch(index, stream, deadline, ttl)
  redis.call('ZADD', index, int(deadline), stream)
  outlive(index, ttl)
end

-- What is added to the expiry of an active stream in its owner's index: so the active ones are counted without a look
-- at each. Larger than any expiry, and exact in a score.
local ACTIVE = 2 ^ 50

-- How many active streams but this one an owner has. O(log streams).
local function count_active(index, stream, time)
  local active = redis.call('ZCOUNT', index, int(ACTIVE + time), '+inf')
  local score = redis.call('ZSCORE', index, stream)
  if score and tonumber(score) >= ACTIVE + time then
    active = active - 1
  end
  return active
end

-- Removes what has expired from an owner's index, from its streams that ended (`from` 0) or its active ones (`from` ACTIVE):
-- 16 to 100 at a time, so that a portion costs microseconds, and few calls have one to remove. Returns whether any was removed.
-- O(log streams).
local function drop_expired(index, from, time)
  local lowest = from > 0 and int(from) or '-inf'
  local expired = redis.call('ZCOUNT', index, lowest, '(' .. int(from + time))
  if expired < 16 then
    return false
  end
  local first = from > 0 and redis.call('ZCOUNT', index, '-inf', '(' .. lowest) or 0
  redis.call('ZREMRANGEBYRANK', index, first, first + math.min(expired, 100) - 1)
  return true
end

-- Lets an owner's index live as long as its furthest member. O(log streams).
local function renew(index)
  local last = 0
  for _, range in ipairs({ { '(' .. int(ACTIVE), '-inf', 0 }, { '+inf', int(ACTIVE), ACTIVE } }) do
    local furthest = redis.call('ZRANGE', index, range[1], range[2], 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
    if furthest[2] then
      last = math.max(last, math.ceil(tonumber(furthest[2])) - range[3])
    end
  end
  if last > 0 then
    redis.call('PEXPIREAT', index, int(math.min(last, 2 ^ 46)))
  end
end

-- Writes an active stream into its owner's index (stream -> expiry, with ACTIVE added while the stream is active), which
-- lives as long. Looks for what has expired where it is `counted`, else in one of eight calls: more is removed than is put in.
-- O(log streams).
local function own_active(index, stream, expires, time, counted)
  local dropped = false
  if counted or time % 8 == 0 then
    local ended, active = drop_expired(index, 0, time), drop_expired(index, ACTIVE, time)
    dropped = ended or active
  end
  redis.call('ZADD', index, int(ACTIVE + expires), stream)
  if dropped then
    renew(index)
  else
    outlive(index, expires - time)
  end
end

-- Writes a stream that is not active into its owner's index. That has to live no longer than its furthest member; active ones
-- stand above all others, and as long as they do it lives long enough for them. O(log streams).
local function own_ended(index, stream, expires)
  redis.call('ZADD', index, int(expires), stream)
  local furthest = tonumber(redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2])
  if furthest < ACTIVE then
    redis.call('PEXPIREAT', index, int(math.min(furthest, 2 ^ 46)))
  elseif furthest < ACTIVE + expires then
    redis.call('PEXPIREAT', index, int(math.min(expires, 2 ^ 46)), 'GT')
  end
end
