-- renew: renews the keys and index entries of a node's streams after a beat, for each stream that its producer still has.
-- KEYS for each stream its hash, log [, owner's index]; then [active]
-- ARGV deadline, ttl without the recovery window, time; then for each stream S, id, epoch
-- Returns for each stream its TTL, 0 if the producer no longer has it, or -1 if a key of another type is in the place of one of its
-- indexes. O(streams * log streams).
local deadline, life, time = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local streams = (#ARGV - 3) / 3
local width = #KEYS > 2 * streams and 3 or 2
local active = width == 3 and KEYS[#KEYS]

local function renew_one(number)
  local at, said = (number - 1) * width, 1 + 3 * number
  local stream, log = KEYS[at + 1], KEYS[at + 2]
  local held = look(stream, 'state', 'epoch', 'window', 'life', 'stale')
  if held[1] ~= 'active' or held[2] ~= ARGV[said + 2] then
    return 0
  end
  -- The stream may have a longer lifetime of its own.
  local ttl = math.max(life, count(held[4], 0) + count(held[5], 0)) + count(held[3], 0)
  expire(ttl, stream, log)
  if active then
    if not redis.call('ZSCORE', active, ARGV[said]) then
      watch(active, ARGV[said], deadline, ttl)
    end
    own(KEYS[at + 3], ARGV[said + 1], time + ttl, true, time)
  end
  return ttl
end

local renewed = {}
for number = 1, streams do
  local done, ttl = pcall(renew_one, number)
  if not done then
    if not string.find(type(ttl) == 'table' and ttl.err or tostring(ttl), 'WRONGTYPE', 1, true) then
      error(ttl)
    end
    ttl = -1
  end
  renewed[number] = ttl
end
return renewed
