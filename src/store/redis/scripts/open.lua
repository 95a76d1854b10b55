-- open: registers a producer, or says why there is none to register. Repeatable by its token.
-- KEYS stream, log, completion [, active, owner's]
-- ARGV S, id, token, node, kind, create, reruns, started, fingerprint, limit, stale, life, window, max events,
--      max bytes, owner, channel, origin, voice, turn, headers, then metadata as pairs
-- Returns new {epoch, previous, inner id, time, events, bytes, origin} | active {started} | ended {completion} | missing | over | other
--      | kind {that}
-- O(log streams + entries dropped).
local stream, log, completion, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local name, short, token = ARGV[1], ARGV[2], ARGV[3]
local stale, life, window = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local held = look(stream, 'state', 'epoch', 'token', 'fp', 'runEnd', 'inner', 'started', 'origin', 'kind', 'turn')
local state, epoch = held[1], held[2]
local exists = state and state ~= 'gone' and state ~= 'deleted'

local origin, kind = held[8] or 'named', held[9] or ''
local log_top, events, bytes = nil, 1, 0

if exists then
  log_top, events, bytes = top(log)
  if state == 'active' and held[3] == token then
    -- A repeat may say more.
    if ARGV[20] ~= '' and not held[10] then
      redis.call('HSET', stream, 'turn', ARGV[20])
    end
    if string.sub(ARGV[21], 1, 1) == '=' then
      redis.call('HSET', stream, 'headers', ARGV[21])
      redis.call('PUBLISH', ARGV[17], epoch .. '-0')
    end
    if ARGV[8] == '1' and held[7] ~= '1' then
      redis.call('HSET', stream, 'started', 1)
    end
    return { 'new', epoch, held[5] or '', held[6] or false, int(now()), int(events), int(bytes), origin }
  end
  -- As `Open::refused_by`.
  if ARGV[18] == 'named' and origin ~= 'published' and kind ~= ARGV[5] then
    return { 'kind', kind }
  end
  if ARGV[18] == 'generated' and (origin ~= 'generated' or kind ~= ARGV[5]) then
    return { 'missing' }
  end
  if held[4] and ARGV[9] ~= '' and held[4] ~= ARGV[9] then
    return { 'other' }
  end
  if state == 'active' then
    return { 'active', has_started(held[7], log_top) and 1 or 0 }
  end
  if is_terminal(state) then
    return { 'ended', redis.call('HGETALL', completion) }
  end
elseif not state and active then
  -- Should a producer think that it has the stream, its next beat falls short, and it registers again.
  redis.call('ZREM', active, name)
end
if not exists and ARGV[6] ~= '1' then
  return { 'missing' }
end

local time = now()
if owners and ARGV[10] ~= '' and count_active(owners, short, time) >= tonumber(ARGV[10]) then
  return { 'over' }
end

local newest = 0
if state then
  newest = tonumber(epoch)
  if state ~= 'gone' and is_terminal(state) then
    newest = newest + 1
  end
end
local run = math.max(newest + 1, time)
local previous = ''
if exists then
  previous = held[5] or log_top or ''
  events, bytes =
    begin_run(log, run, epoch, previous, id(run, 0), tonumber(ARGV[14]), time, log_top, events, bytes)
  move_metadata(stream, 'm:', 'w:')
else
  redis.call('UNLINK', stream, log, completion)
  mark(log, id(run, 0), time, 0, 0, 'r', '')
end

if not exists or origin ~= 'generated' or ARGV[18] ~= 'named' then
  origin = ARGV[18]
end
local ttl = life + window + stale
redis.call('HSET', stream, 'v', 1, 'state', 'active', 'epoch', int(run), 'token', token, 'node', ARGV[4], 'kind', ARGV[5],
  'origin', origin, 'owner', ARGV[16], 'reruns', ARGV[7], 'started', ARGV[8], 'startedAt', int(time), 'stale', int(stale),
  'life', int(life), 'window', int(window), 'maxEvents', ARGV[14], 'maxBytes', ARGV[15])
redis.call('HDEL', stream, 'leased', 'heard', 'headers')
-- A stream stays a turn of its first conversation, whatever request runs it again.
tell_route(stream, ARGV[19], exists and held[10] or ARGV[20], ARGV[21])
if previous ~= '' then
  redis.call('HSET', stream, 'runEnd', previous, 'previous', previous)
end
if ARGV[9] ~= '' then
  redis.call('HSET', stream, 'fp', ARGV[9])
end
keep(stream, ARGV, 22, #ARGV)
expire(ttl, stream, log)
if active then
  watch(active, name, time + math.min(stale, life), ttl)
  own(owners, short, time + ttl, true, time)
end
redis.call('PUBLISH', ARGV[17], id(run, 0))
return { 'new', int(run), previous, held[6] or false, int(time), int(events), int(bytes), origin }
