-- open: registers a producer, or returns why it does not. A repeat with the same token returns the same registration.
-- KEYS stream, log, completion [, active, owner's]
-- ARGV S, id, token, create, fingerprint, limit, ms until the deadline, ttl, channel, origin, kind, started, turn, headers,
--      max events, then the fields of the stream, as pairs
-- Returns new {epoch, previous, inner id, time, events, bytes, origin} | active {started} | ended {completion} | missing | over | other
--      | kind {stored kind}
-- O(log streams + entries dropped).
local stream, log, completion, active, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local time, ttl, origin = now(), tonumber(ARGV[8]), ARGV[10]
local run, is_first, previous, inner, turn, events, bytes = time, true, '', false, nil, 1, 0

local function is_over()
  return owners and ARGV[6] ~= '' and count_active(owners, ARGV[2], time) >= tonumber(ARGV[6])
end

if ARGV[4] == '1' and redis.call('EXISTS', stream, log, completion) == 0 then
  if is_over() then
    return { 'over' }
  end
else
  -- include prelude.lua
  local held = look(stream, 'state', 'epoch', 'token', 'fp', 'runEnd', 'inner', 'started', 'origin', 'kind', 'turn')
  local state, epoch = held[1], held[2]
  local exists = state and state ~= 'gone' and state ~= 'deleted'
  local held_origin, kind, log_top = held[8] or 'named', held[9] or '', nil
  if exists then
    if state == 'active' and held[3] == ARGV[3] then
      log_top, events, bytes = top(log)
      -- A repeat may add a turn or headers, or set `started`.
      if ARGV[13] ~= '' and not held[10] then
        redis.call('HSET', stream, 'turn', ARGV[13])
      end
      if string.sub(ARGV[14], 1, 1) == '=' then
        redis.call('HSET', stream, 'headers', ARGV[14])
        redis.call('PUBLISH', ARGV[9], epoch .. '-0')
      end
      if ARGV[12] == '1' and held[7] ~= '1' then
        redis.call('HSET', stream, 'started', 1)
      end
      return { 'new', epoch, held[5] or '', held[6] or false, time, events, bytes, held_origin }
    end
    -- The same rules as in `Open::refused_by`.
    if origin == 'named' and held_origin ~= 'published' and kind ~= ARGV[11] then
      return { 'kind', kind }
    end
    if origin == 'generated' and (held_origin ~= 'generated' or kind ~= ARGV[11]) then
      return { 'missing' }
    end
    if held[4] and ARGV[5] ~= '' and held[4] ~= ARGV[5] then
      return { 'other' }
    end
    if state == 'active' then
      -- Read the log's newest entry, which may be large, only if the hash does not show the start.
      return { 'active', (held[7] == '1' or has_started(held[7], top(log))) and 1 or 0 }
    end
    if is_terminal(state) then
      return { 'ended', redis.call('HGETALL', completion) }
    end
  elseif not state and active then
    -- If a producer still runs the stream, its next beat finds the entry missing, and it registers the stream again.
    redis.call('ZREM', active, ARGV[1])
  end
  if not exists and ARGV[4] ~= '1' then
    return { 'missing' }
  end
  if is_over() then
    return { 'over' }
  end

  local newest = 0
  if state then
    newest = tonumber(epoch)
    if state ~= 'gone' and is_terminal(state) then
      newest = newest + 1
    end
  end
  run = math.max(newest + 1, time)
  if exists then
    log_top, events, bytes = top(log)
    is_first, previous, inner, turn = false, held[5] or log_top or '', held[6] or false, held[10]
    events, bytes =
      begin_run(log, run, epoch, previous, id(run, 0), tonumber(ARGV[15]), time, log_top, events, bytes)
    move_metadata(stream, 'm:', 'w:')
    if held_origin == 'generated' and origin == 'named' then
      origin = held_origin
    end
    redis.call('HDEL', stream, 'leased', 'heard', 'headers')
    if previous ~= '' then
      redis.call('HSET', stream, 'runEnd', previous, 'previous', previous)
    end
  else
    redis.call('UNLINK', stream, log, completion)
    events, bytes = 1, 0
  end
end

local epoch = int(run)
if is_first then
  redis.call('XADD', log, epoch .. '-0', 't', int(time - run), 'n', 1, 'b', 0, 'r', '')
end
redis.call('HSET', stream, 'epoch', epoch, 'startedAt', int(time), 'origin', origin, unpack(ARGV, 16))
if turn then
  -- A stream stays a turn of its first conversation, even if a request of another conversation runs it again.
  redis.call('HSET', stream, 'turn', turn)
end
expire(ttl, stream, log)
if active then
  watch(active, ARGV[1], time + tonumber(ARGV[7]), ttl)
  own_active(owners, ARGV[2], time + ttl, time, ARGV[6] ~= '')
end
redis.call('PUBLISH', ARGV[9], epoch .. '-0')
return { 'new', epoch, previous, inner, time, events, bytes, origin }
