-- mark: makes a stream's deadline even, so that it differs from the odd one that a later registration writes. The number of a lease
-- becomes even too. The stream still stands under the lease, but the node counts one stream fewer, so it names the stream again.
-- KEYS index    ARGV S. Returns the deadline, or 0 if the stream is not in the index. O(log streams).
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local deadline = tonumber(lease_of(tonumber(score or '')) or count(score, 0))
deadline = deadline - deadline % 2
if deadline > 0 then
  redis.call('ZADD', KEYS[1], 'XX', int(deadline), ARGV[1])
end
return deadline
