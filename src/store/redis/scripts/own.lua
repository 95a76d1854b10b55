-- own: an owner's index in a cluster, where it lies in another slot than the stream; where a limit is set, its authority.
-- KEYS owner's    ARGV id, expiry or '' to take it out, active, limit or '', time or ''
-- Returns 1, or 0 if the owner has too many active streams. O(log streams); with a limit O(streams of the owner).
local time = ARGV[5] ~= '' and tonumber(ARGV[5]) or now()
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  renew(KEYS[1])
  return 1
end
local expires = tonumber(ARGV[2])
if ARGV[4] ~= '' then
  if count_active(KEYS[1], ARGV[1], time) >= tonumber(ARGV[4]) then
    return 0
  end
  -- A place that is taken for a moment does not shorten the life of one that is there.
  expires = math.max(expires, count(redis.call('ZSCORE', KEYS[1], ARGV[1]), 0))
end
own(KEYS[1], ARGV[1], expires, ARGV[3] == '1', time)
return 1
