-- append: what a plain XADD cannot say. A batch with news apart from its events, one that the log may hold already, or one
-- whose stream's log was not found: compared with what is stored, never believed; written whole or not at all. The log is cut
-- afterwards, by whoever wrote.
-- KEYS stream, log, completion
-- ARGV epoch, first seq, time, starts, has inner id, inner id, inner retry, number of metadata pairs, the pairs
--      [, number of events, the events]
-- Returns stored {events, bytes, max events, max bytes, {what the log had taken in before the batch, if that was written now}}
-- | newer | ended {completion} | gone | refused. O(bytes of the batch and of the log's newest entry).
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
  redis.call('UNLINK', stream)
  return { 'gone' }
end
local pairs_end = 8 + 2 * tonumber(ARGV[8])
local epoch, first = tonumber(ARGV[1]), tonumber(ARGV[2])
local top_epoch, top_seq = parts(log_top)
local made, before = tonumber(ARGV[pairs_end + 1] or 0), {}
local last = id(epoch, first + made - 1)
if made > 0 and top_epoch == epoch and top_seq >= first then
  -- Held already, as this very entry or before the first one that is held. Anything else stands in its place, or behind it: to
  -- say that it is stored would lose it without a word.
  local entry = redis.call('XRANGE', log, last, last, 'COUNT', 1)[1]
  if entry then
    if count(field(entry, 'k'), 1) ~= made then
      return { 'refused' }
    end
  elseif not above(redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][1], last) then
    return { 'refused' }
  end
elseif made > 0 then
  local event = ARGV[pairs_end + 2]
  before = { int(events), int(bytes) }
  events, bytes = events + made, bytes + #event - 1
  redis.call('XADD', log, last, 't', int(tonumber(ARGV[3]) - epoch), 'n', int(events), 'b', int(bytes), 'k', int(made), 'e',
    event)
end
if made == 0 and first - 1 > (top_epoch == epoch and top_seq or 0) then
  -- What the producer made and the log does not hold, a failover took: whoever ends the stream has to know.
  redis.call('HSET', stream, 'lost', id(epoch, first - 1))
end
-- Only who says so, or has events, has begun to answer: metadata alone does not keep an `open` from being withdrawn.
if ARGV[4] == '1' or made > 0 then
  redis.call('HSET', stream, 'started', 1)
end
if ARGV[5] == '1' then
  redis.call('HSET', stream, 'inner', ARGV[6])
end
if ARGV[7] ~= '' then
  redis.call('HSET', stream, 'retry', ARGV[7])
end
keep(stream, ARGV, 9, pairs_end)
return { 'stored', int(events), int(bytes), int(count(held[3], 10000)), int(count(held[4], 8388608)), before }
