-- trim: drops a log's oldest entries until the log fits the limits, for a producer that does not know where these entries begin. It
-- must load the entries that it drops, so it stops after 256 KiB or 128 entries, but drops at least one. The caller then calls it
-- again. The newest entry always stays.
-- KEYS log    ARGV max events, max bytes, events and bytes that the log has taken in
-- Returns the number of events and bytes that the log had taken in up to the last dropped entry. O(events dropped).
local log, max_events, max_bytes = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local events, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local from, loaded, dropped_events, dropped_bytes, cut = '-', 0, nil, nil, nil
for _ = 1, 128 do
  local entry = redis.call('XRANGE', log, from, '+', 'COUNT', 1)[1]
  if not entry then
    break
  end
  local own_events, own_bytes = 0, 0
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'r' then
      own_events = own_events + 1
    elseif entry[2][i] == 'e' then
      own_events, own_bytes = own_events + count(field(entry, 'k'), 1), #entry[2][i + 1] - 1
    end
  end
  local up_to_events, up_to_bytes = count(field(entry, 'n'), 0), count(field(entry, 'b'), 0)
  if not dropped_events then
    dropped_events, dropped_bytes = math.max(up_to_events - own_events, 0), math.max(up_to_bytes - own_bytes, 0)
  end
  local fits = events - dropped_events <= max_events and bytes - dropped_bytes <= max_bytes
  if fits or up_to_events >= events then
    break
  end
  dropped_events, dropped_bytes, cut = up_to_events, up_to_bytes, entry[1]
  from, loaded = '(' .. cut, loaded + own_bytes
  if loaded >= 262144 then
    break
  end
end
if cut then
  -- Drop all ids up to `cut`.
  local epoch, seq = parts(cut)
  redis.call('XTRIM', log, 'MINID', seq < 2 ^ 52 and id(epoch, seq + 1) or id(epoch + 1, 0))
end
return { int(dropped_events or 0), int(dropped_bytes or 0) }
