-- reopen: registers a running producer again, with its own epoch, after the store has lost it or has only an older run. Lost events
-- become a gap.
-- KEYS stream, log, completion [, active, owner's]
-- ARGV S, id, token, node, kind, epoch, reruns, acknowledged seq, fingerprint, has inner id, stale, life, window,
--      max events, max bytes, owner, channel, inner id, started, origin, inner retry, voice, turn, headers, then metadata as
--      pairs
-- Returns registered {time, events, bytes} | newer | ended {completion}. O(log streams + entries dropped).
local stream, log, completion, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held = look(stream, 'state', 'epoch', 'token', 'runEnd', 'origin')
local state = held[1]
local exists = state and state ~= 'gone'
if exists and not is_before(held[2], ARGV[6]) then
  if state == 'active' and held[2] == ARGV[6] and held[3] == ARGV[3] then
    local _, events, bytes = top(log)
    return { 'registered', int(now()), int(events), int(bytes) }
  end
  return fence(state, held[2], ARGV[6], completion) or { 'newer' }
end
local time = now()
local stale, life, window = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local ttl = life + window + stale
local start, previous, origin, events, bytes = ARGV[6] .. '-0', '', ARGV[20], 1, 0
if not exists then
  redis.call('UNLINK', stream, log, completion)
  mark(log, start, time, 0, 0, 'r', '')
else
  if is_terminal(state) then
    -- The older run's end was deleted or had expired when this run began, and a failover brought it back. Remove it again.
    redis.call('UNLINK', stream, completion)
    local cut = redis.pcall('XTRIM', log, 'MINID', start)
    if type(cut) == 'table' and cut.err then
      redis.call('UNLINK', log)
    end
  else
    previous = held[4] or (held[2] .. '-0')
    if held[5] == 'generated' and origin == 'named' then
      origin = held[5]
    end
    redis.call('HDEL', stream, 'leased', 'heard', 'headers')
    move_metadata(stream, 'm:', 'w:')
  end
  local log_top
  log_top, events, bytes = top(log)
  if log_top and above(log_top, start) then
    -- Events of this run were stored after the failover, so no marker can be written before them. Readers get a gap, as for a
    -- trimmed marker.
    redis.pcall('XDEL', log, held[2] .. '-' .. MAX_SEQ)
  elseif log_top ~= start then
    if previous ~= '' and log_top then
      previous = highest(previous, log_top)
    end
    -- The end of the run before is unknown, since the failover may have lost events of it too.
    events, bytes =
      begin_run(log, tonumber(ARGV[6]), held[2], '', start, tonumber(ARGV[14]), time, log_top, events, bytes)
  end
end
redis.call('HSET', stream, 'v', 1, 'state', 'active', 'epoch', ARGV[6], 'token', ARGV[3], 'node', ARGV[4], 'kind', ARGV[5],
  'origin', origin, 'owner', ARGV[16], 'reruns', ARGV[7], 'started', ARGV[19], 'startedAt', int(time),
  'stale', int(stale), 'life', int(life), 'window', int(window), 'maxEvents', ARGV[14], 'maxBytes', ARGV[15],
  'lost', ARGV[6] .. '-' .. ARGV[8])
if previous ~= '' then
  redis.call('HSET', stream, 'runEnd', previous, 'previous', previous)
end
if ARGV[9] ~= '' then
  redis.call('HSET', stream, 'fp', ARGV[9])
end
if ARGV[10] == '1' then
  redis.call('HSET', stream, 'inner', ARGV[18])
end
if ARGV[21] ~= '' then
  redis.call('HSET', stream, 'retry', ARGV[21])
end
tell_route(stream, ARGV[22], ARGV[23], ARGV[24])
keep(stream, ARGV, 25, #ARGV)
expire(ttl, stream, log)
if active then
  watch(active, ARGV[1], time + math.min(stale, life), ttl)
  own(owners, ARGV[2], time + ttl, true, time)
end
redis.call('PUBLISH', ARGV[17], ARGV[6] .. '-0')
return { 'registered', int(time), int(events), int(bytes) }
