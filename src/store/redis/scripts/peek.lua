-- peek: returns the first entry of a range of a log, without its events, which may be large. Backwards, it skips seals.
-- KEYS log    ARGV XRANGE or XREVRANGE, from, to
-- Returns a reply of that command's form. O(events of the entry).
local from = ARGV[2]
for _ = 1, 3 do
  local entries = redis.pcall(ARGV[1], KEYS[1], from, ARGV[3], 'COUNT', 1)
  local entry = entries[1]
  if entries.err or not entry then
    return {}
  end
  if ARGV[1] == 'XRANGE' or not field(entry, 's') then
    local others = {}
    for i = 1, #entry[2], 2 do
      if entry[2][i] ~= 'e' then
        others[#others + 1] = entry[2][i]
        others[#others + 1] = entry[2][i + 1]
      end
    end
    return { { entry[1], others } }
  end
  from = '(' .. entry[1]
end
return {}
