-- close: ends a stream; the first to do so wins, and everyone learns that end. In one step: the log is sealed, the
-- terminal event stored, the state changed.
-- KEYS stream, log, completion, keys [, active, owner's, due, leases]
-- ARGV S, id, epoch or '', state, reason or '', has event, event, last seq or '', deadline or '', hook lease or '',
--      terminal type, terminal data, channel, node channels' prefix
-- Returns now {node, completion, ms that it is kept, turn or ''} | before {completion} | newer | moved | missing. O(log streams).
local stream, log, completion, keys, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local held = look(stream, 'state', 'epoch', 'runEnd', 'window', 'node', 'lost', 'turn')
local state = held[1]
if not state or state == 'gone' or (state == 'deleted' and ARGV[3] == '') then
  return { 'missing' }
end
if ARGV[3] ~= '' and is_before(held[2], ARGV[3]) then
  return { 'missing' }
end
if is_terminal(state) then
  return { 'before', redis.call('HGETALL', completion) }
end
if ARGV[3] ~= '' and ARGV[3] ~= held[2] then
  return { 'newer' }
end
if active and ARGV[9] ~= '' then
  if deadline_of(state == 'active' and active or due, KEYS[8], ARGV[1]) ~= tonumber(ARGV[9]) then
    return { 'moved' }
  end
end

local epoch, time, window = tonumber(held[2]), now(), count(held[4], 0)
local log_top, events, bytes = top(log)
-- The last event that was made: recorded, lost with a store that forgot it, or said to have been made.
local last = highest(log_top or id(epoch, 0), held[6])
if state == 'interrupted' then
  last = highest(last, held[3])
end
if ARGV[8] ~= '' then
  last = highest(last, held[2] .. '-' .. ARGV[8])
end
mark(log, id(epoch + 1, 0), time, events, bytes, 's', '')
redis.call('HSET', stream, 'state', ARGV[4])
redis.call('UNLINK', completion)
redis.call('HSET', completion, 'v', 1, 'state', ARGV[4], 'id', id(epoch + 1, 0), 'last', last, 'completedAt', int(time),
  'terminalEventType', ARGV[11], 'terminalEventData', ARGV[12])
if ARGV[5] ~= '' then
  redis.call('HSET', completion, 'reason', ARGV[5])
end
if ARGV[6] == '1' then
  redis.call('HSET', completion, 'event', ARGV[7])
end
if ARGV[10] ~= '' then
  redis.call('HSET', completion, 'onEnd', 'due')
end
expire(window, stream, log, completion, keys)
if active then
  redis.call('ZREM', active, ARGV[1])
  redis.call('ZREM', due, ARGV[1])
  if ARGV[10] ~= '' then
    watch(due, ARGV[1], time + tonumber(ARGV[10]), window)
  end
  own(owners, ARGV[2], time + window, false, time)
end
redis.call('PUBLISH', ARGV[13], id(epoch + 1, 0))
if held[5] and held[5] ~= '' then
  redis.call('PUBLISH', ARGV[14] .. held[5], 'look ' .. ARGV[1])
end
return { 'now', held[5] or '', redis.call('HGETALL', completion), int(window), held[7] or '' }
