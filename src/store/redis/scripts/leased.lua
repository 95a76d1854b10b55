-- leased: stores a leased stream's last heartbeat, which its deadline no longer shows. If the stream was leased before, because its
-- job runs on, the script also makes its keys live until its lifetime is over: the producer may have renewed them long ago.
-- KEYS stream, log    ARGV epoch, last heartbeat, new deadline. O(1).
local held = look(KEYS[1], 'state', 'epoch', 'leased', 'life', 'window', 'stale')
if held[1] ~= 'active' or held[2] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'heard', ARGV[2], 'leased', ARGV[3])
if held[3] then
  local ttl = count(ARGV[2], 0) + count(held[4], 0) + count(held[5], 0) + count(held[6], 0) - now()
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, int(math.max(math.min(ttl, 2 ^ 46), 1)), 'GT')
  end
end
return 1
