-- vouch: renews the leases under which a node's streams stand. Part of the node's beat.
-- KEYS active, leases    ARGV ms for which the leases are renewed, ttl in ms, then the leases
-- Returns for each lease the number of streams under it. O(leases * log streams).
local deadline, renewed, counts = int(now() + tonumber(ARGV[1])), { 'ZADD', KEYS[2] }, {}
for i = 3, #ARGV do
  renewed[#renewed + 1], renewed[#renewed + 2] = deadline, ARGV[i]
end
redis.call(unpack(renewed))
redis.call('PEXPIRE', KEYS[2], ARGV[2], 'NX')
redis.call('PEXPIRE', KEYS[2], ARGV[2], 'GT')
for i = 3, #ARGV do
  counts[#counts + 1] = redis.call('ZCOUNT', KEYS[1], ARGV[i], ARGV[i])
end
return counts
