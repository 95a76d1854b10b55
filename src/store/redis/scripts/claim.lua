-- claim: leases what somebody must look at. Pushes the deadlines, fences nothing.
-- KEYS active, due    ARGV latest deadline of an active stream or '', limit, lease in ms, time or ''
-- Returns the time, then S, old and new deadline of each: first of hooks and ended lifetimes, then of active streams,
-- parted by ''. O(log streams) with nothing due; O(limit * log streams) at most.
local time = ARGV[4] ~= '' and tonumber(ARGV[4]) or now()
local limit, leased = tonumber(ARGV[2]), { int(time) }

local function lease(index, latest)
  local streams = redis.call('ZRANGEBYSCORE', index, '-inf', int(latest), 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #streams, 2 do
    local deadline = int(time + tonumber(ARGV[3]))
    redis.call('ZADD', index, 'XX', deadline, streams[i])
    leased[#leased + 1] = streams[i]
    leased[#leased + 1] = streams[i + 1]
    leased[#leased + 1] = deadline
    limit = limit - 1
  end
end

lease(KEYS[2], time)
leased[#leased + 1] = ''
if ARGV[1] ~= '' and limit > 0 then
  lease(KEYS[1], math.min(time, tonumber(ARGV[1])))
end
return leased
