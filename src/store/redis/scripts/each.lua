-- each: runs a script (`one`) for each of many streams.
-- KEYS of all streams, the same number for each    ARGV number of streams; for each its number of arguments, then the arguments
-- Returns the reply for each stream. An error is the reply for its stream only. Once 64 KiB of entries were loaded, the reply for
-- all further streams is `again`, so that large entries do not block the server. O(streams * cost of the script).
local streams, all, said = tonumber(ARGV[1]), {}, 2
local keys = #KEYS / streams
for i = 0, streams - 1 do
  local last = said + tonumber(ARGV[said])
  local done, reply = true, { 'again' }
  if loaded < 65536 then
    done, reply = pcall(one, { unpack(KEYS, i * keys + 1, (i + 1) * keys) }, { unpack(ARGV, said + 1, last) })
  end
  if not done and type(reply) ~= 'table' then
    reply = { err = tostring(reply) }
  end
  all[i + 1], said = reply, last + 1
end
return all
