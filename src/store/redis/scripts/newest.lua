-- newest: returns the id of a log's newest entry, if it is above a given id. It returns no content, since entries may be large.
-- KEYS log    ARGV `-`, or `(` and the given id. O(1).
local found = redis.call('XREVRANGE', KEYS[1], '+', ARGV[1], 'COUNT', 1)
return found[1] and found[1][1]
