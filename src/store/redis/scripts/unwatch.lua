-- unwatch: takes a stream out of an index, or sets its deadline, if that is still the one that was seen: whoever has
-- registered it since is not undone.
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
