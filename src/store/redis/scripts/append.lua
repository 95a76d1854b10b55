-- append: appends a batch for which a plain XADD is not enough: it has more than events, or the log may hold it already, or the
-- stream's log was not found. The script compares the batch with the log, and writes all of it or nothing. The caller trims the
-- log afterwards.
-- KEYS stream, log, completion
-- ARGV epoch, first seq, time, starts, has inner id, inner id, inner retry, number of metadata pairs, the pairs
--      [, number of events, the events]
-- Returns stored {events, bytes, max events, max bytes, {events and bytes before the batch, if this call wrote it}}
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
  -- The log was evicted, or somebody deleted it. The producer registers again, which creates both keys.
  redis.call('UNLINK', stream)
  return { 'gone' }
end
local pairs_end = 8 + 2 * tonumber(ARGV[8])
local epoch, first = tonumber(ARGV[1]), tonumber(ARGV[2])
local top_epoch, top_seq = parts(log_top)
local made, before = tonumber(ARGV[pairs_end + 1] or 0), {}
local last = id(epoch, first + made - 1)
if made > 0 and top_epoch == epoch and top_seq >= first then
  -- The batch should be in the log as this very entry, or be trimmed already. Otherwise the log holds something else there, and
  -- an acknowledgement would lose the batch silently.
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
  -- A failover lost events that the producer had stored. Remember the last of them for the end of the stream.
  redis.call('HSET', stream, 'lost', id(epoch, first - 1))
end
-- The stream has started if the caller says so or the batch has events. With metadata alone its `open` can still be withdrawn.
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
