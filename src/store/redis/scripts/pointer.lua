-- pointer: changes a conversation's pointer: the stream that it names and, behind that, those that it named before and that
-- have not given way, the newest first, with a blank between. It keeps its TTL where none is given.
-- KEYS pointer
-- ARGV `point`, stream, ttl, most that may stand behind, `any`, `nothing` or `stream`, that stream
--      | `unpoint`, stream | `yield`, streams | `renew`, stream, ttl, whether to put it back
-- Returns whether it names another stream now (`point`: whether it was moved), then the streams. O(streams).
local key, verb, stream = KEYS[1], ARGV[1], ARGV[2]
local held, streams = redis.pcall('GET', key), {}
if type(held) == 'string' then
  for name in string.gmatch(held, '%S+') do
    streams[#streams + 1] = name
  end
end

local function answer(moved)
  table.insert(streams, 1, moved)
  return streams
end

local function write(ttl)
  if #streams == 0 then
    redis.call('UNLINK', key)
  elseif ttl then
    redis.call('SET', key, table.concat(streams, ' '), 'PX', int(math.min(tonumber(ttl), 2 ^ 46)))
  else
    redis.call('SET', key, table.concat(streams, ' '), 'KEEPTTL')
  end
end

-- Leaves out those of the list, from a place on.
local function without(list, from)
  local named, kept = {}, {}
  for _, name in ipairs(list) do
    named[name] = true
  end
  for i, name in ipairs(streams) do
    if i < from or not named[name] then
      kept[#kept + 1] = name
    end
  end
  local changed = #kept < #streams
  streams = kept
  return changed
end

if verb == 'point' then
  for i, name in ipairs(streams) do
    if name == stream then
      if i == 1 then
        write(ARGV[3])
      end
      return answer(1)
    end
  end
  local expected = ARGV[5] == 'any' or (ARGV[5] == 'nothing' and #streams == 0) or (ARGV[5] == 'stream' and streams[1] == ARGV[6])
  if not expected or #streams > tonumber(ARGV[4]) then
    return answer(0)
  end
  table.insert(streams, 1, stream)
  write(ARGV[3])
  return answer(1)
end
if verb == 'unpoint' then
  local goes_back = streams[1] == stream
  if without({ stream }, 1) then
    write()
  end
  return answer(goes_back and 1 or 0)
elseif verb == 'yield' then
  if without({ unpack(ARGV, 2) }, 2) then
    write()
  end
elseif streams[1] == stream then
  redis.call('PEXPIRE', key, int(math.min(tonumber(ARGV[3]), 2 ^ 46)))
elseif #streams == 0 and ARGV[4] == '1' then
  streams[1] = stream
  write(ARGV[3])
end
return answer(0)
