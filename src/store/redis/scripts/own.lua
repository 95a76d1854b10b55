-- own: changes an owner's index in a cluster, where the index is in another slot than the stream. If there is a limit of active
-- streams, this index decides.
-- KEYS owner's    ARGV id, ms for which the stream is held or '' to remove it, active, limit or '', NX or ''
-- Returns 1; 0 if the owner has too many active streams, or with NX if the stream is there already. O(log streams).
local index, id, time = KEYS[1], ARGV[1], now()
if ARGV[2] == '' then
  redis.call('ZREM', index, id)
  renew(index)
  return 1
end
local expires, held = time + tonumber(ARGV[2]), redis.call('ZSCORE', index, id)
if ARGV[5] == 'NX' and held then
  return 0
end
if ARGV[4] ~= '' then
  if count_active(index, id, time) >= tonumber(ARGV[4]) then
    return 0
  end
  -- A short reservation must not shorten the expiry of an entry that is there already.
  held = tonumber(held or 0)
  if held > 0 and held < 2 * ACTIVE then
    expires = math.max(expires, math.floor(held % ACTIVE))
  end
end
own(index, id, expires, ARGV[3] == '1', time)
return 1
