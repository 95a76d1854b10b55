-- Functions for the clock, the lifetimes of keys, and the indexes. A server defines them at each call of a script, which takes
-- about 30 ns for each. Functions that a plain opening or end does not need are therefore in prelude.lua.
-- In the descriptions of ARGV, S is the stream's name in the indexes.
local function int(number)
  return string.format('%d', number)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Returns fields of a stream. A key of another type counts as no stream, and a registration replaces it.
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

-- Makes an index live for at least `ttl`. If its lifetime is too short, sets a sixteenth more, so that few calls have to write it.
-- O(1).
local function outlive(index, ttl)
  if redis.call('PTTL', index) < ttl then
    redis.call('PEXPIRE', index, int(math.min(ttl + ttl / 16, 2 ^ 46)))
  end
end

-- Puts a stream into an index of deadlines, and makes the index live as long as the stream. O(log streams).
local function watch(index, stream, deadline, ttl)
  redis.call('ZADD', index, int(deadline), stream)
  outlive(index, ttl)
end

-- Added to the expiry of an active stream in its owner's index, so that the active streams are a range of scores and can be
-- counted at once. It is larger than any expiry, and a score represents the sum exactly.
local ACTIVE = 2 ^ 50

-- Returns the number of an owner's active streams, without this one. O(log streams).
local function count_active(index, stream, time)
  local active = redis.call('ZCOUNT', index, int(ACTIVE + time), '+inf')
  local score = redis.call('ZSCORE', index, stream)
  if score and tonumber(score) >= ACTIVE + time then
    active = active - 1
  end
  return active
end

-- Removes expired members from an owner's index: from its ended streams (`from` 0) or its active ones (`from` ACTIVE). It removes
-- at most 100, so that it takes microseconds, and none while fewer than 16 have expired, so that few calls remove any. Returns
-- whether it removed any. O(log streams).
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

-- Makes an owner's index live until its last member expires. O(log streams).
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

-- Writes an active stream into its owner's index (stream -> expiry, plus ACTIVE while the stream is active), and makes the index
-- live as long. Removes expired members if the owner's streams are `counted`, otherwise in one of eight calls: a removal takes at
-- least 16 members, so the index does not grow. O(log streams).
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

-- Writes a stream that is not active into its owner's index. The index must live until its last member expires. Active streams
-- have the highest scores. If there is one, the index lives long enough for all active streams already, and its lifetime is only
-- extended. O(log streams).
local function own_ended(index, stream, expires)
  redis.call('ZADD', index, int(expires), stream)
  local furthest = tonumber(redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2])
  if furthest < ACTIVE then
    redis.call('PEXPIREAT', index, int(math.min(furthest, 2 ^ 46)))
  elseif furthest < ACTIVE + expires then
    redis.call('PEXPIREAT', index, int(math.min(expires, 2 ^ 46)), 'GT')
  end
end
