-- withdraw: takes back an `open` whose producer never started. After a first run, only the epoch is left, until the clock has passed
-- it. After a later run, the stream is interrupted.
-- KEYS stream, log, completion [, active, owner's, due]    ARGV S, id, token, channel
-- Returns taken {turn if nothing is left of the stream, otherwise ''; epoch} | kept. O(log streams).
local stream, log, completion, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local held = look(stream, 'state', 'token', 'epoch', 'started', 'runEnd', 'life', 'reruns', 'window', 'stale',
  'turn')
if held[1] ~= 'active' or held[2] ~= ARGV[3] then
  return { 'kept' }
end
local log_top, events, bytes = top(log)
if has_started(held[4], log_top) then
  return { 'kept' }
end
local epoch, time, life, turn = count(held[3], 0), now(), count(held[6], 0), ''
if held[5] then
  mark(log, held[3] .. '-' .. MAX_SEQ, time, events, bytes, 's', '')
  redis.call('HSET', stream, 'state', 'interrupted', 'runEnd', id(epoch, 0))
  move_metadata(stream, 'w:', 'm:')
  -- As in interrupt.lua: a guardian must close a stream that cannot run again.
  local ttl = life
  if held[7] ~= '1' then
    ttl = life + count(held[8], 0) + count(held[9], 0)
  end
  expire(ttl, stream, log)
  if active then
    if held[7] ~= '1' then
      watch(due, ARGV[1], time + life, ttl)
    end
    own(owners, ARGV[2], time + ttl, false, time)
  end
else
  turn = held[10] or ''
  redis.call('UNLINK', stream, log, completion)
  redis.call('HSET', stream, 'v', 1, 'state', 'gone', 'epoch', held[3])
  expire(math.max(epoch - time, 0) + 1000, stream)
  if active then
    redis.call('ZREM', owners, ARGV[2])
    renew(owners)
  end
end
if active then
  redis.call('ZREM', active, ARGV[1])
end
redis.call('PUBLISH', ARGV[4], 'withdrawn')
return { 'taken', turn, int(epoch) }
