-- reopen: registers a running producer again, with its own epoch, after the store forgot it. What is lost stays a gap.
-- KEYS stream, log, completion [, active, owner's]
-- ARGV S, id, token, node, kind, epoch, reruns, acknowledged seq, fingerprint, has inner id, stale, life, window,
--      max events, max bytes, owner, channel, inner id, started, origin, inner retry, then metadata as pairs
-- Returns registered {time, events, bytes} | newer | ended {completion}. O(log streams).
local stream, log, completion, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held = look(stream, 'state', 'epoch', 'token')
local state = held[1]
if state and state ~= 'gone' then
  if state == 'active' and held[2] == ARGV[6] and held[3] == ARGV[3] then
    local _, events, bytes = top(log)
    return { 'registered', int(now()), int(events), int(bytes) }
  end
  return fence(state, held[2], ARGV[6], completion) or { 'newer' }
end
local time = now()
local stale, life, window = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local ttl = life + window + stale
redis.call('DEL', stream, log, completion)
mark(log, ARGV[6] .. '-0', time, 0, 0, 'r', '')
redis.call('HSET', stream, 'v', 1, 'state', 'active', 'epoch', ARGV[6], 'token', ARGV[3], 'node', ARGV[4], 'kind', ARGV[5],
  'origin', ARGV[20], 'owner', ARGV[16], 'reruns', ARGV[7], 'started', ARGV[19], 'startedAt', int(time),
  'stale', int(stale), 'life', int(life), 'window', int(window), 'maxEvents', ARGV[14], 'maxBytes', ARGV[15],
  'lost', ARGV[6] .. '-' .. ARGV[8])
if ARGV[9] ~= '' then
  redis.call('HSET', stream, 'fp', ARGV[9])
end
if ARGV[10] == '1' then
  redis.call('HSET', stream, 'inner', ARGV[18])
end
if ARGV[21] ~= '' then
  redis.call('HSET', stream, 'retry', ARGV[21])
end
keep(stream, ARGV, 22, #ARGV)
expire(ttl, stream, log)
if active then
  watch(active, ARGV[1], time + math.min(stale, life), ttl)
  own(owners, ARGV[2], time + ttl, true, time)
end
redis.call('PUBLISH', ARGV[17], ARGV[6] .. '-0')
return { 'registered', int(time), '1', '0' }
