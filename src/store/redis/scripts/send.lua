-- send: appends one event with the next seq, without a registered producer. It opens the stream if it is new, and begins a new run if
-- the stream has expired because no event came for its lifetime. A repeat with the same key stores nothing again, as long as the key
-- is among the newest 1024 of this run and the one before.
-- KEYS stream, log, completion, keys [, active, owner's, due]
-- ARGV S, id, kind, event, ending state or '', has key, key, hook lease or '', stale, life, window, max events, max bytes,
--      owner, channel, terminal type, terminal data, the bytes after the event's id
-- Returns stored {id} | ended {completion} | conflict | before {completion}, each with the time. O(log streams + entries
-- dropped, none of which is loaded).
local stream, log, completion, keys, active, owners, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local stale, life, window = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local ttl, time = life + window + stale, now()
local held = look(stream, 'state', 'epoch', 'node', 'sentBefore', 'taken', 'life')
local state, epoch = held[1], held[2]

-- The field `taken` of a stream that only this script writes to: the newest seq, then the number of events and bytes that the log has
-- taken in up to now, up to the newest mark, and before its first entry. With them no entry has to be loaded, which takes long if the
-- entry is large.
local function known(text)
  local numbers = {}
  for number in string.gmatch(text or '', '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return #numbers == 7 and numbers or nil
end

local gone = not state or state == 'gone' or state == 'deleted'
local log_top, events, bytes
local taken = held[3] == '' and known(held[5])
if not gone and state == 'active' and taken and redis.call('TYPE', log).ok == 'stream' then
  log_top, events, bytes = epoch .. '-' .. int(taken[1]), taken[2], taken[3]
else
  log_top, events, bytes = top(log)
end
if not gone and state == 'active' and held[3] == '' and not log_top then
  -- The log is missing, so the newest seq is unknown. Begin a new run, so that no id is used twice.
  gone = true
end
if gone then
  local newest = 0
  if state then
    newest = count(epoch, 0) + (state == 'deleted' and 1 or 0)
  end
  epoch = int(math.max(newest + 1, time))
  redis.call('UNLINK', stream, log, completion, keys)
  mark(log, epoch .. '-0', time, 0, 0, 'r', '')
  redis.call('HSET', stream, 'v', 1, 'state', 'active', 'epoch', epoch, 'node', '', 'kind', ARGV[3], 'origin', 'published',
    'owner', ARGV[14], 'reruns', 0, 'started', 1, 'startedAt', int(time), 'stale', int(stale), 'life', int(life),
    'window', int(window), 'maxEvents', ARGV[12], 'maxBytes', ARGV[13])
  held[3], held[6], state = '', false, 'active'
  log_top, events, bytes = epoch .. '-0', 1, 0
  taken = { 0, 1, 0, 0, 0, 0, 0 }
end
-- The score of a key is its event's seq, or END for the end. Scores of the run before are lower by EARLIER.
local END, EARLIER = 2 ^ 52, 2 ^ 51
if ARGV[6] == '1' then
  local seq = redis.call('ZSCORE', keys, 'n:' .. ARGV[7])
  if seq and tonumber(seq) == END then
    return { 'ended', redis.call('HGETALL', completion), int(time) }
  end
  if seq then
    return { 'stored', epoch .. '-' .. int(tonumber(seq)), int(time) }
  end
  seq = redis.call('ZSCORE', keys, 'o:' .. ARGV[7])
  if seq and held[4] then
    return { 'stored', held[4] .. '-' .. int(tonumber(seq) + EARLIER), int(time) }
  end
end
if state == 'expired' and held[3] == '' then
  -- The stream expired without a producer, so nobody has ended it and the sender need not know. Begin a new run.
  local previous = redis.call('HGET', completion, 'last') or log_top or (epoch .. '-0')
  local sent = redis.call('ZRANGE', keys, 0, -1, 'WITHSCORES')
  redis.call('UNLINK', keys, completion)
  for i = 1, #sent, 2 do
    if string.sub(sent[i], 1, 2) == 'n:' then
      redis.call('ZADD', keys, int(tonumber(sent[i + 1]) - EARLIER), 'o:' .. string.sub(sent[i], 3))
    end
  end
  local run = math.max(tonumber(epoch) + 2, time)
  events, bytes = begin_run(log, run, epoch, previous, id(tonumber(epoch) + 1, 0), tonumber(ARGV[12]), time, log_top,
    events, bytes)
  redis.call('HSET', stream, 'state', 'active', 'sentBefore', epoch, 'epoch', int(run), 'previous', previous,
    'runEnd', previous, 'startedAt', int(time))
  redis.call('HDEL', stream, 'leased', 'lost')
  if active then
    redis.call('ZREM', due, ARGV[1])
  end
  epoch, state, log_top = int(run), 'active', id(run, 0)
end
if is_terminal(state) then
  return { 'before', redis.call('HGETALL', completion), int(time) }
end
if held[3] ~= '' or state ~= 'active' then
  return { 'conflict', '', int(time) }
end

local _, seq = parts(log_top or (epoch .. '-0'))
local function remember(number)
  if ARGV[6] == '1' then
    redis.call('ZADD', keys, int(number), 'n:' .. ARGV[7])
    redis.call('ZREMRANGEBYRANK', keys, 0, -1025)
  end
end
if ARGV[5] ~= '' then
  local terminal = id(tonumber(epoch) + 1, 0)
  mark(log, terminal, time, events, bytes, 's', '')
  redis.call('UNLINK', completion)
  redis.call('HSET', stream, 'state', ARGV[5])
  remember(END)
  redis.call('HSET', completion, 'v', 1, 'state', ARGV[5], 'id', terminal, 'last', log_top or (epoch .. '-0'),
    'completedAt', int(time), 'event', ARGV[4], 'terminalEventType', ARGV[16], 'terminalEventData', ARGV[17])
  if ARGV[8] ~= '' then
    redis.call('HSET', completion, 'onEnd', 'due')
  end
  expire(window, stream, log, completion, keys)
  if active then
    redis.call('ZREM', active, ARGV[1])
    if ARGV[8] ~= '' then
      watch(due, ARGV[1], time + tonumber(ARGV[8]), window)
    end
    own(owners, ARGV[2], time + window, false, time)
  end
  redis.call('PUBLISH', ARGV[15], terminal)
  return { 'ended', redis.call('HGETALL', completion), int(time) }
end
-- Senders may give the stream different lifetimes. The longest counts.
local kept = count(held[6], life)
if kept < life then
  redis.call('HSET', stream, 'life', int(life))
elseif kept > life then
  life, ttl = kept, kept + window + stale
end
local max_events, max_bytes = tonumber(ARGV[12]), tonumber(ARGV[13])
-- If another writer has written to the log, the beginnings of its entries are unknown, and a cut drops them all at once.
taken = taken or { seq, events, bytes, 0, 0, 0, 0 }
local event = ARGV[4] .. 'e' .. epoch .. '-' .. int(seq + 1) .. ARGV[18]
local now_events, now_bytes = events + 1, bytes + #event - 1
local sent, cut, marks = id(epoch, seq + 1), nil, nil
local is_mark = now_events - taken[4] > max_events / 32 or now_bytes - taken[5] > max_bytes / 32
local many, much = now_events - taken[6] > max_events, now_bytes - taken[7] > max_bytes
if is_mark or many or much then
  -- A mark is an entry's id, and the number of events and bytes that the log had taken in before it.
  marks = (redis.call('HGET', stream, 'marks') or '') .. '|' .. sent .. ' ' .. int(events) .. ' ' .. int(bytes)
  taken[4], taken[5] = events, bytes
  if many or much then
    -- Cut up to a sixteenth too much, so that not every later event cuts. The newest entry always stays.
    local least_events, least_bytes = max_events - math.floor(max_events / 16), max_bytes - math.floor(max_bytes / 16)
    local kept, fits = 1, false
    for at, mark, before_events, before_bytes in string.gmatch(marks, '()|(%d+%-%d+) (%d+) (%d+)') do
      before_events, before_bytes = tonumber(before_events), tonumber(before_bytes)
      local left_events, left_bytes = now_events - before_events, now_bytes - before_bytes
      if not fits or ((not many or left_events >= least_events) and (not much or left_bytes >= least_bytes)) then
        cut, kept, taken[6], taken[7] = mark, at, before_events, before_bytes
      end
      fits = left_events <= max_events and left_bytes <= max_bytes
    end
    marks = string.sub(marks, kept)
  end
end
local add = { 'XADD', log }
if cut then
  add[3], add[4] = 'MINID', cut
end
for _, word in ipairs({ sent, 't', int(time - tonumber(epoch)), 'n', int(now_events), 'b', int(now_bytes), 'e', event }) do
  add[#add + 1] = word
end
local added = redis.pcall(unpack(add))
if type(added) == 'table' then
  -- Another writer has written to the log. Make the next call read the log.
  redis.call('HDEL', stream, 'taken')
  return added
end
remember(seq + 1)
if marks then
  redis.call('HSET', stream, 'marks', marks)
end
redis.call('HSET', stream, 'heard', int(time), 'taken', string.format('%d %d %d %d %d %d %d', seq + 1,
  now_events, now_bytes, taken[4], taken[5], taken[6], taken[7]))
expire(ttl, stream, log, keys)
if active then
  watch(active, ARGV[1], time + life, ttl)
  own(owners, ARGV[2], time + ttl, true, time)
end
redis.call('PUBLISH', ARGV[15], sent)
return { 'stored', sent, int(time) }
