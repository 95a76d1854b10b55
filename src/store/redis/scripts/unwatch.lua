-- unwatch: removes a stream from an index, or sets its deadline, but only if the deadline is still the one that the caller has seen.
-- So it does not undo a registration in between.
-- KEYS index    ARGV S, deadline seen, new deadline or ''. O(log streams).
local deadline = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not deadline or tonumber(deadline) ~= tonumber(ARGV[2]) then
  return 0
end
if ARGV[3] == '' then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
return 1
