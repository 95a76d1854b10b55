-- standing: returns what the indexes of a cluster must contain about a stream.
-- KEYS stream, completion
-- Returns the ms for which the stream is held (0 if it is not held), whether it is active, and the ms until a guardian must look
-- after it ('' if none must). That deadline belongs in the index of active streams if the stream is active, otherwise in the index of
-- hooks and lifetimes. O(1).
local held = look(KEYS[1], 'state', 'node', 'stale', 'life', 'window', 'reruns')
local state, ttl = held[1], redis.call('PTTL', KEYS[1])
if not state or state == 'gone' or state == 'deleted' or ttl < 0 then
  return { 0, 0, '' }
end
local stale, life = count(held[3], 0), count(held[4], 0)
-- The keys outlive the lifetime by the recovery window and the stale threshold.
local lives = math.max(ttl - count(held[5], 0) - stale, 0)
if state == 'active' then
  local looked_after = lives
  if held[2] and held[2] ~= '' then
    looked_after = math.min(stale, life)
  end
  return { ttl, 1, int(looked_after) }
end
local hook = redis.pcall('HGET', KEYS[2], 'onEnd')
if (state == 'interrupted' and held[6] ~= '1') then
  return { ttl, 0, int(lives) }
end
if is_terminal(state) and hook == 'due' then
  return { ttl, 0, 0 }
end
return { ttl, 0, '' }
