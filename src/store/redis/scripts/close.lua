-- close: ends a stream. The first call wins, and every later one returns the stored end. In one step, the script seals the log,
-- stores the terminal event and changes the state.
-- KEYS stream, log, completion, keys [, active, owner's, due, leases]
-- ARGV S, id, epoch or '', state, last seq or '', deadline or '', hook lease or '', channel, node channels' prefix,
--      events and bytes that the log has taken in up to that last seq or '', then the fields of the completion, as pairs
-- Returns now {node, epoch, last, time, ms that it is kept, turn or ''} | before {completion, ms, turn} | newer | moved | missing.
-- O(log streams), plus O(events of the log's newest entry) if the caller does not pass what the log has taken in.
local stream, log, completion, keys, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local held = look(stream, 'state', 'epoch', 'window', 'node', 'turn', 'runEnd', 'lost')
local state, epoch, window = held[1], held[2], string.match(held[3] or '', '^%d+$')
local time, last, events, bytes = now(), nil, ARGV[10], ARGV[11]
local is_plain = state == 'active' and epoch == ARGV[3] and events ~= '' and ARGV[6] == '' and not held[7]
if is_plain and window and #window < 14 then
  window = tonumber(window)
  last = epoch .. '-' .. ARGV[5]
else
  -- include prelude.lua
  if not state or state == 'gone' or (state == 'deleted' and ARGV[3] == '') then
    return { 'missing' }
  end
  if ARGV[3] ~= '' and is_before(epoch, ARGV[3]) then
    return { 'missing' }
  end
  if is_terminal(state) then
    return { 'before', redis.call('HGETALL', completion), int(math.max(redis.call('PTTL', stream), 0)), held[5] or '' }
  end
  if ARGV[3] ~= '' and ARGV[3] ~= epoch then
    return { 'newer' }
  end
  if active and ARGV[6] ~= '' then
    if deadline_of(state == 'active' and active or due, KEYS[8], ARGV[1]) ~= tonumber(ARGV[6]) then
      return { 'moved' }
    end
  end
  window, epoch = count(held[3], 0), int(tonumber(epoch))
  local log_top
  log_top, events, bytes = top(log)
  -- The last event that the producer made: it is in the log, or the store has lost it, or the caller names it.
  last = highest(log_top or (epoch .. '-0'), held[7])
  if state == 'interrupted' then
    last = highest(last, held[6])
  end
  if ARGV[5] ~= '' then
    last = highest(last, epoch .. '-' .. ARGV[5])
  end
end

local ends = epoch + 1
local seal = int(ends) .. '-0'
-- This fails if the log has this seal or a later entry already, which seals the log as well.
redis.pcall('XADD', log, seal, 't', int(time - ends), 'n', events, 'b', bytes, 's', '')
redis.call('HSET', stream, 'state', ARGV[4])
local function write()
  return redis.pcall('HSET', completion, 'id', seal, 'last', last, 'completedAt', int(time), unpack(ARGV, 12))
end
if write() ~= 3 + (#ARGV - 11) / 2 then
  -- The key existed already, with other fields or another type.
  redis.call('UNLINK', completion)
  write()
end
expire(window, stream, log, completion)
if held[4] == '' then
  expire(window, keys)
end
if active then
  redis.call('ZREM', active, ARGV[1])
  if ARGV[7] ~= '' then
    watch(due, ARGV[1], time + tonumber(ARGV[7]), window)
  elseif held[6] or state ~= 'active' then
    -- The stream was interrupted once, so it may be in the index of streams that a guardian must look after.
    redis.call('ZREM', due, ARGV[1])
  end
  own_ended(owners, ARGV[2], time + window)
end
redis.call('PUBLISH', ARGV[8], seal)
if held[4] and held[4] ~= '' and ARGV[5] == '' then
  -- Only the producer itself names the last event. Any other caller must notify the producing node.
  redis.call('PUBLISH', ARGV[9] .. held[4], 'look ' .. ARGV[1])
end
return { 'now', held[4] or '', epoch, last, time, window, held[5] or '' }
