-- renew: a producer's beat found its stream: renews what is kept of it, unless it is another's by now, or nobody's.
-- KEYS stream, log [, active, owner's]    ARGV S, id, epoch, deadline, ttl without the recovery window, time
-- Returns the TTL, 0 if the stream is not the producer's any more. O(log streams).
local stream, log, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local held = look(stream, 'state', 'epoch', 'window')
if held[1] ~= 'active' or held[2] ~= ARGV[3] then
  return 0
end
local ttl, time = tonumber(ARGV[5]) + count(held[3], 0), tonumber(ARGV[6])
expire(ttl, stream, log)
if active then
  if not redis.call('ZSCORE', active, ARGV[1]) then
    watch(active, ARGV[1], tonumber(ARGV[4]), ttl)
  end
  own(owners, ARGV[2], time + ttl, true, time)
end
return ttl
