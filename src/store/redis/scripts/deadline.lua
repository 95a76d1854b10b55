-- deadline: returns an active stream's deadline, which is its own or that of its lease. Returns nothing if there is none.
-- KEYS active, leases    ARGV S. O(log streams).
local score = redis.pcall('ZSCORE', KEYS[1], ARGV[1])
local number = type(score) == 'string' and tonumber(score)
if number and number >= 2 ^ 52 and number < 2 ^ 53 then
  -- The number of a lease is odd, and its score is one lower if the stream is marked.
  score = redis.pcall('ZSCORE', KEYS[2], string.format('%d', number + 1 - number % 2))
end
return type(score) == 'string' and score
