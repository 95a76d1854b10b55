-- claim: leases what somebody must look at. Pushes the deadlines, fences nothing.
-- KEYS active, due    ARGV latest deadline of an active stream or '', limit, lease in ms
-- Returns the time, then two lists of S, old and new deadline of each: of hooks and ended lifetimes, and of active
-- streams. O(log streams) with nothing due; O(limit * log streams) at most.
local time = now()
local limit = tonumber(ARGV[2])

local function lease(index, latest)
  local leased = {}
  local streams = redis.call('ZRANGEBYSCORE', index, '-inf', int(latest), 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #streams, 2 do
    -- Even, unlike what a producer registers meanwhile: see watch.lua.
    local deadline = time + tonumber(ARGV[3])
    deadline = int(deadline - deadline % 2)
    redis.call('ZADD', index, 'XX', deadline, streams[i])
    leased[#leased + 1] = streams[i]
    leased[#leased + 1] = streams[i + 1]
    leased[#leased + 1] = deadline
    limit = limit - 1
  end
  return leased
end

local hooked, overdue = lease(KEYS[2], time), {}
if ARGV[1] ~= '' and limit > 0 then
  overdue = lease(KEYS[1], math.min(time, tonumber(ARGV[1])))
end
return { int(time), hooked, overdue }
