-- append: what a plain XADD cannot say. A batch of several entries or with news apart from its events, one of which the log
-- may hold a part already, or one whose stream's log was not found: compared with what is stored, never believed; written
-- whole or not at all. The log is cut afterwards, by whoever wrote.
-- KEYS stream, log, completion
-- ARGV epoch, first seq, time, starts, has inner id, inner id, inner retry, number of metadata pairs, the pairs, the events
-- Returns stored {events, bytes, max events, max bytes, of each entry written its first seq and what the log had taken in
-- before it} | newer | ended {completion} | gone | refused. O(events of the batch and of the log's newest entry).
local stream, log, completion = KEYS[1], KEYS[2], KEYS[3]
local held = look(stream, 'state', 'epoch', 'maxEvents', 'maxBytes')
if not held[1] or held[1] == 'gone' or is_before(held[2], ARGV[1]) then
  return { 'gone' }
end
local fenced = fence(held[1], held[2], ARGV[1], completion)
if fenced then
  return fenced
end
local log_top, events, bytes = top(log)
if not log_top then
  -- The state without its log: evicted, or removed by hand. To register again brings both back.
  redis.call('DEL', stream)
  return { 'gone' }
end
local pairs_end = 8 + 2 * tonumber(ARGV[8])
local epoch, first = tonumber(ARGV[1]), tonumber(ARGV[2])
local top_epoch, top_seq = parts(log_top)
local skip = 0
if top_epoch == epoch and top_seq >= first then
  skip = top_seq - first + 1
end
if skip > 0 and #ARGV > pairs_end then
  -- A part of it is held. If that is not its beginning, and what was before the batch is held too, then the beginning was
  -- never stored, as nothing is dropped between two entries. To say that it is would lose it without a word.
  local entry, made = redis.call('XRANGE', log, id(epoch, first), '+', 'COUNT', 1)[1], 0
  for i = 1, #entry[2], 2 do
    made = made + (entry[2][i] == 'e' and 1 or 0)
  end
  local _, seq = parts(entry[1])
  if seq - made >= first and redis.call('XREVRANGE', log, '(' .. entry[1], '-', 'COUNT', 1)[1] then
    return { 'refused' }
  end
end
local max_events, max_bytes = count(held[3], 10000), count(held[4], 8388608)
-- In entries as small as those of a plain append, so that the log can be cut where it must be.
local per_entry = math.max(math.min(math.floor(max_events / 16), 64), 1)
local count_of, at, marks = #ARGV - pairs_end, skip, {}
while at < count_of do
  local entry, size = { 'XADD', log, '', 't', int(tonumber(ARGV[3]) - epoch), 'n', '', 'b', '' }, 0
  local last = at
  while last < count_of and last - at < per_entry do
    local event = ARGV[pairs_end + last + 1]
    if last > at and size + #event - 1 > max_bytes / 16 then
      break
    end
    size, last = size + #event - 1, last + 1
    entry[#entry + 1] = 'e'
    entry[#entry + 1] = event
  end
  marks[#marks + 1], marks[#marks + 2], marks[#marks + 3] = int(first + at), int(events), int(bytes)
  events, bytes = events + last - at, bytes + size
  entry[3], entry[7], entry[9] = id(epoch, first + last - 1), int(events), int(bytes)
  redis.call(unpack(entry))
  at = last
end
if count_of == 0 and first - 1 > (top_epoch == epoch and top_seq or 0) then
  -- What the producer made and the log does not hold, a failover took: whoever ends the stream has to know.
  redis.call('HSET', stream, 'lost', id(epoch, first - 1))
end
-- Only who says so, or has events, has begun to answer: metadata alone does not keep an `open` from being withdrawn.
if ARGV[4] == '1' or count_of > 0 then
  redis.call('HSET', stream, 'started', 1)
end
if ARGV[5] == '1' then
  redis.call('HSET', stream, 'inner', ARGV[6])
end
if ARGV[7] ~= '' then
  redis.call('HSET', stream, 'retry', ARGV[7])
end
keep(stream, ARGV, 9, pairs_end)
return { 'stored', int(events), int(bytes), int(max_events), int(max_bytes), marks }
