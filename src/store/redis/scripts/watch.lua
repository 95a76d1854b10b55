-- watch: puts a stream into an index of deadlines, in a cluster, where that lies in another slot than the stream.
-- KEYS index    ARGV S, deadline, ttl in ms, NX or ''. Returns 1 if it was not there. O(log streams).
if ARGV[4] == 'NX' and redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
watch(KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
return before and 0 or 1
