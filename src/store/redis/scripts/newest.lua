-- newest: the id of a log's newest entry, if that is above another one. Only the id: entries may be large.
-- KEYS log    ARGV where to begin: `-`, or `(` and an id. O(1).
local found = redis.call('XREVRANGE', KEYS[1], '+', ARGV[1], 'COUNT', 1)
return found[1] and found[1][1]
