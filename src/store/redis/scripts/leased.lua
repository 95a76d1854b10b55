-- leased: keeps when a leased stream's producer was last heard of, which its deadline says no more. Its keys live on until its
-- lifetime is over, should its job run on: the producer may have renewed them long ago.
-- KEYS stream, log    ARGV epoch, last heard, new deadline. O(1).
local held = look(KEYS[1], 'state', 'epoch', 'life', 'window', 'stale')
if held[1] == 'active' and held[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'heard', ARGV[2], 'leased', ARGV[3])
  local ttl = tonumber(ARGV[2]) + count(held[3], 0) + count(held[4], 0) + count(held[5], 0) - now()
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, int(math.max(math.min(ttl, 2 ^ 46), 1)), 'GT')
  end
end
return 1
