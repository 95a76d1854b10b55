-- each: does for many streams what a script (`one`) does for one.
-- KEYS of each stream, as many as of the others    ARGV how many streams; of each, how many arguments, and these
-- Returns what the script says of each; one that fails fails alone. Once entries of 64 KiB were loaded the rest is told `again`: a
-- server is not to be held up for as long as large ones take. O(streams * what the script costs).
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
