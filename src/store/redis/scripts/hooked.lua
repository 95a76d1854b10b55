-- hooked: records that the `on_end` hook was acknowledged.
-- KEYS completion [, due]    ARGV S. O(log streams).
if redis.call('HGET', KEYS[1], 'onEnd') == 'due' then
  redis.call('HSET', KEYS[1], 'onEnd', 'done')
end
if KEYS[2] then
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
