-- delete: removes a stream and all of its data. A tombstone stays for one stale threshold. It fences a producer of the stream,
-- which would otherwise conclude that the store has lost the stream, and register it again.
-- KEYS stream, log, completion, keys [, active, owner's, due]    ARGV S, id, channel, node channels' prefix
-- Returns deleted {turn or '', epoch} | missing. O(entries of the log).
local stream, log, completion, keys, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local held = look(stream, 'state', 'epoch', 'stale', 'node', 'runEnd', 'lost', 'turn')
local state = held[1]
if not state or state == 'gone' or state == 'deleted' then
  return { 'missing' }
end
local epoch, time = count(held[2], 0), now()
if is_terminal(state) then
  redis.call('HDEL', completion, 'event', 'terminalEventType', 'terminalEventData', 'onEnd')
else
  local last = highest(top(log) or id(epoch, 0), held[6])
  if state == 'interrupted' then
    last = highest(last, held[5])
  end
  redis.call('UNLINK', completion)
  redis.call('HSET', completion, 'v', 1, 'state', 'cancelled', 'reason', 'stopped', 'id', id(epoch + 1, 0), 'last', last,
    'completedAt', int(time))
end
redis.call('UNLINK', stream, log, keys)
redis.call('HSET', stream, 'v', 1, 'state', 'deleted', 'epoch', int(epoch))
expire(math.max(count(held[3], 0), epoch + 1 - time + 1000), stream, completion)
if active then
  redis.call('ZREM', active, ARGV[1])
  redis.call('ZREM', due, ARGV[1])
  redis.call('ZREM', owners, ARGV[2])
  renew(owners)
end
redis.call('PUBLISH', ARGV[3], 'deleted')
if held[4] and held[4] ~= '' then
  redis.call('PUBLISH', ARGV[4] .. held[4], 'deleted ' .. int(epoch) .. ' ' .. ARGV[1])
end
return { 'deleted', held[7] or '', int(epoch) }
