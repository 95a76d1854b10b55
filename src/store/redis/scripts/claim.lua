-- claim: leases the streams whose deadlines have passed to a guardian, which looks after them. It only moves their deadlines, and
-- fences no producer.
-- KEYS active, due, leases
-- ARGV latest deadline of an active stream or '', limit, ms of the guardian's lease, the lease of a node to begin at
-- Returns the time, then two lists with S, the old and the new deadline of each stream: the streams with a hook or an ended
-- lifetime, and the active streams. O(log streams) if none is due; O(limit * log streams) at most.
local time = now()
local limit = tonumber(ARGV[2])

-- Leases up to `limit` streams of a range. `was` is the old deadline of streams under a lease, which have none of their own.
local function lease(leased, index, from, to, was)
  local streams = redis.call('ZRANGEBYSCORE', index, from, to, 'WITHSCORES', 'LIMIT', 0, limit)
  -- Even, unlike the deadline of a registration in between: see watch.lua.
  local deadline = time + tonumber(ARGV[3])
  deadline = int(deadline - deadline % 2)
  local pushed = {}
  for i = 1, #streams, 2 do
    pushed[#pushed + 1], pushed[#pushed + 2] = deadline, streams[i]
    if #pushed == 1000 or i + 1 >= #streams then
      redis.call('ZADD', index, 'XX', unpack(pushed))
      pushed = {}
    end
    leased[#leased + 1] = streams[i]
    leased[#leased + 1] = was or streams[i + 1]
    leased[#leased + 1] = deadline
    limit = limit - 1
  end
end

-- Leases the streams whose node's lease is overdue. Removes the node's lease once no stream is left under it.
local function lease_of_nodes(leased, latest)
  local overdue = redis.pcall('ZRANGEBYSCORE', KEYS[3], '-inf', int(latest), 'WITHSCORES', 'LIMIT', 0, 500)
  for i = 1, #overdue, 2 do
    if limit == 0 then
      return
    end
    local number = tonumber(lease_of(tonumber(overdue[i])))
    if number then
      lease(leased, KEYS[1], int(number - 1), int(number), overdue[i + 1])
    end
    if limit > 0 then
      redis.call('ZREM', KEYS[3], overdue[i])
    end
  end
end

-- Finds streams under a lease that the index of leases has lost, and adds the lease again. It becomes overdue unless its node
-- renews it. Each call checks only a few leases, and begins at another one.
local function miss_leases()
  local from, wrapped = ARGV[4], false
  for _ = 1, 32 do
    local found = redis.call('ZRANGEBYSCORE', KEYS[1], from, '(' .. int(2 * LEASES), 'WITHSCORES', 'LIMIT', 0, 1)
    local held = lease_of(tonumber(found[2]))
    if held then
      if wrapped and tonumber(held) > tonumber(ARGV[4]) then
        return
      end
      local known = redis.pcall('ZSCORE', KEYS[3], held)
      if type(known) == 'table' then
        return
      end
      if not known then
        local grace = 2 ^ math.min(math.floor((tonumber(held) - LEASES) / 2 ^ 46), 46)
        watch(KEYS[3], held, time + grace, grace + 3600000)
      end
      from = '(' .. held
    elseif wrapped then
      return
    else
      from, wrapped = int(LEASES), true
    end
  end
end

local hooked, overdue = {}, {}
lease(hooked, KEYS[2], '-inf', int(time))
if ARGV[1] ~= '' and limit > 0 then
  local latest = math.min(time, tonumber(ARGV[1]))
  lease(overdue, KEYS[1], '-inf', int(latest))
  lease_of_nodes(overdue, latest)
  miss_leases()
end
return { int(time), hooked, overdue }
