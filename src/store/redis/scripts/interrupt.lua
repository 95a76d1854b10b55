-- interrupt: records that a stream has no producer now, but may get one again, and seals the log for the run.
-- KEYS stream, log, completion [, active, owner's, due, leases]
-- ARGV S, id, epoch, last seq or '', deadline or '', channel, node channels' prefix
-- Returns done {ms that it is kept, turn or ''} | newer | ended {completion} | moved | missing. O(log streams).
local stream, log, completion, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local held = look(stream, 'state', 'epoch', 'life', 'window', 'stale', 'reruns', 'node', 'lost', 'turn')
local state = held[1]
if not state or state == 'gone' or is_before(held[2], ARGV[3]) then
  return { 'missing' }
end
local time, life = now(), count(held[3], 0)
if state == 'interrupted' and held[2] == ARGV[3] then
  -- A repeat also returns the turn: the first caller may have died before it changed the pointer.
  return { 'done', int(math.max(redis.call('PTTL', stream), 0)), held[9] or '' }
end
local fenced = fence(state, held[2], ARGV[3], completion)
if fenced then
  return fenced
end
if active and ARGV[5] ~= '' then
  if deadline_of(active, KEYS[7], ARGV[1]) ~= tonumber(ARGV[5]) then
    return { 'moved' }
  end
end
local log_top, events, bytes = top(log)
local last = highest(log_top or (held[2] .. '-0'), held[8])
if ARGV[4] ~= '' then
  last = highest(last, held[2] .. '-' .. ARGV[4])
end
mark(log, held[2] .. '-' .. MAX_SEQ, time, events, bytes, 's', '')
redis.call('HSET', stream, 'state', 'interrupted', 'runEnd', last)
-- A guardian must close a stream that cannot run again, once its lifetime is over. Any other stream just expires.
local ttl = life
if held[6] ~= '1' then
  ttl = life + count(held[4], 0) + count(held[5], 0)
end
expire(ttl, stream, log)
if active then
  redis.call('ZREM', active, ARGV[1])
  if held[6] ~= '1' then
    watch(due, ARGV[1], time + life, ttl)
  end
  own(owners, ARGV[2], time + ttl, false, time)
end
redis.call('PUBLISH', ARGV[6], held[2] .. '-' .. MAX_SEQ)
if held[7] and held[7] ~= '' then
  redis.call('PUBLISH', ARGV[7] .. held[7], 'look ' .. ARGV[1])
end
return { 'done', int(ttl), held[9] or '' }
