-- deadline: an active stream's deadline: its own, or that of the lease which it stands under.
-- KEYS active, leases    ARGV S
-- Returns it, nothing if there is none. O(log streams).
local score = redis.pcall('ZSCORE', KEYS[1], ARGV[1])
local number = type(score) == 'string' and tonumber(score)
if number and number >= 2 ^ 52 and number < 2 ^ 53 then
  -- Even where the stream is marked.
  score = redis.pcall('ZSCORE', KEYS[2], string.format('%d', number + 1 - number % 2))
end
return type(score) == 'string' and score
