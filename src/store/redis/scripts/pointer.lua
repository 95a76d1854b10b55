-- pointer: changes a conversation's pointer. The pointer is a list of turns, separated by blanks: the turn that it names, then the
-- turns that it named before and that have not given way, the newest first. A turn is `stream:epoch:time`: its stream, the run, and
-- when the pointer was moved to it, or would have been, by this server's clock. Without a `ttl` the pointer keeps its TTL.
-- KEYS pointer
-- ARGV `point`, stream, epoch, ms since the turn began, ttl, most earlier turns, `nothing` or `stream`, the stream expected in front
--      | `unpoint`, stream, newest epoch or '' | `yield`, streams
--      | `renew`, stream, ttl, epoch to put it back for or '', ms since the turn began
-- Returns whether the pointer names another stream now (`point`: whether it names or keeps the turn), then the turns. O(turns).
local key, verb, stream = KEYS[1], ARGV[1], ARGV[2]
local held, turns = redis.pcall('GET', key), {}
if type(held) == 'string' then
  for name, epoch, at in string.gmatch(held, '([^%s:]+):(%d+):(%d+)') do
    if #epoch < 17 then
      turns[#turns + 1] = { name, epoch, int(count(at, 0)) }
    end
  end
end

local function text()
  local all = {}
  for i, turn in ipairs(turns) do
    all[i] = table.concat(turn, ':')
  end
  return all
end

local function answer(moved)
  local all = text()
  table.insert(all, 1, moved)
  return all
end

local function write(ttl)
  if #turns == 0 then
    redis.call('UNLINK', key)
  elseif ttl then
    redis.call('SET', key, table.concat(text(), ' '), 'PX', int(math.min(tonumber(ttl), 2 ^ 46)))
  else
    redis.call('SET', key, table.concat(text(), ' '), 'KEEPTTL')
  end
end

-- Removes the turns for which `is_meant` holds. Returns whether there were any.
local function without(is_meant)
  local kept = {}
  for i, turn in ipairs(turns) do
    if not is_meant(turn, i) then
      kept[#kept + 1] = turn
    end
  end
  local changed = #kept < #turns
  turns = kept
  return changed
end

-- Returns the position for a turn that began `since` ms ago, and its time. A turn that begins now goes to the front, an older one
-- behind the turns to which the pointer was moved since.
local function place_of(since)
  local time = now()
  if since == 0 then
    return 1, math.max(time, turns[1] and tonumber(turns[1][3]) or 0)
  end
  time = math.max(time - since, 0)
  for i, turn in ipairs(turns) do
    if tonumber(turn[3]) < time then
      return i, time
    end
  end
  return #turns + 1, time
end

if verb == 'point' then
  local epoch = tonumber(ARGV[3])
  -- An older run of the stream is over.
  local changed = without(function(turn)
    return turn[1] == stream and tonumber(turn[2]) < epoch
  end)
  local known = false
  for _, turn in ipairs(turns) do
    known = known or turn[1] == stream
  end
  if not known then
    local named = turns[1] and turns[1][1]
    local expected = (ARGV[7] == 'nothing' and not named) or (ARGV[7] == 'stream' and named == ARGV[8])
    if not expected or #turns > tonumber(ARGV[6]) then
      if changed then
        write()
      end
      return answer(0)
    end
    local place, at = place_of(tonumber(ARGV[4]))
    table.insert(turns, place, { stream, ARGV[3], int(at) })
  end
  write(turns[1][1] == stream and ARGV[5] or nil)
  return answer(1)
end
if verb == 'unpoint' then
  local epoch, named = tonumber(ARGV[3]), turns[1] and turns[1][1]
  local changed = without(function(turn)
    return turn[1] == stream and (not epoch or tonumber(turn[2]) <= epoch)
  end)
  if changed then
    write()
  end
  return answer(changed and named == stream and 1 or 0)
elseif verb == 'yield' then
  local given = {}
  for i = 2, #ARGV do
    given[ARGV[i]] = true
  end
  if without(function(turn, i)
    return i > 1 and given[turn[1]]
  end) then
    write()
  end
elseif turns[1] and turns[1][1] == stream then
  redis.call('PEXPIRE', key, int(math.min(tonumber(ARGV[3]), 2 ^ 46)))
elseif #turns == 0 and ARGV[4] ~= '' then
  local _, at = place_of(tonumber(ARGV[5]))
  turns[1] = { stream, ARGV[4], int(at) }
  write(ARGV[3])
end
return answer(0)
