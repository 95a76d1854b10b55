-- mark: makes a stream's deadline even, so that from here on one that registers it (odd) is told apart. So is the number of
-- the lease that a stream stands under: it still does, and its node, which counts its streams, looks at it and names it again.
-- KEYS index    ARGV S. Returns the deadline, 0 if the stream is not in the index. O(log streams).
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local deadline = tonumber(lease_of(tonumber(score or '')) or count(score, 0))
deadline = deadline - deadline % 2
if deadline > 0 then
  redis.call('ZADD', KEYS[1], 'XX', int(deadline), ARGV[1])
end
return deadline
