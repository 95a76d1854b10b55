-- append: what a plain XADD cannot say. A batch with news apart from its events, one of which the log may hold a part
-- already, or one whose stream's log was not found: compared with what is stored, never believed.
-- KEYS stream, log, completion
-- ARGV epoch, first seq, time, starts, has inner id, inner id, inner retry, number of metadata pairs, the pairs, the events
-- Returns stored {events, bytes, max events, max bytes} | newer | ended {completion} | gone.
-- O(events of the batch + entries dropped).
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
local max_events, max_bytes = count(held[3], 10000), count(held[4], 8388608)
-- In entries as small as those of a plain append, so that the log can be cut where it must be.
local per_entry = math.max(math.min(math.floor(max_events / 16), 64), 1)
local count_of, at = #ARGV - pairs_end, skip
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
  events, bytes = events + last - at, bytes + size
  entry[3], entry[7], entry[9] = id(epoch, first + last - 1), int(events), int(bytes)
  redis.call(unpack(entry))
  at = last
end
if count_of > skip and (events > max_events or bytes > max_bytes) then
  trim(log, max_events, max_bytes)
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
return { 'stored', int(events), int(bytes), int(max_events), int(max_bytes) }
