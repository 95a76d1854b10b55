-- own: an owner's index in a cluster, where it lies in another slot than the stream; where a limit is set, its authority.
-- KEYS owner's    ARGV id, expiry or '' to take it out, active, limit or '', time or ''
-- Returns 1, or 0 if the owner has too many active streams. O(log streams); with a limit O(streams of the owner).
local time = ARGV[5] ~= '' and tonumber(ARGV[5]) or now()
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  renew(KEYS[1])
  return 1
end
if ARGV[4] ~= '' and count_active(KEYS[1], ARGV[1], time) >= tonumber(ARGV[4]) then
  return 0
end
local expires = tonumber(ARGV[2])
if ARGV[4] ~= '' then
  -- A place that is only reserved takes nothing from one that is held.
  local held = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
  expires = math.max(expires, held)
end
own(KEYS[1], ARGV[1], expires, ARGV[3] == '1', time)
return 1
