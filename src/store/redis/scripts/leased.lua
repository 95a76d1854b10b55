-- leased: keeps when a leased stream's producer was last heard of, which its deadline says no more.
-- KEYS stream    ARGV epoch, last heard, new deadline. O(1).
local held = look(KEYS[1], 'state', 'epoch')
if held[1] == 'active' and held[2] == ARGV[1] then
  redis.call('HSET', KEYS[1], 'heard', ARGV[2], 'leased', ARGV[3])
end
return 1
