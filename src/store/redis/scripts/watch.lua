-- watch: puts a stream into an index of deadlines in a cluster, where the index is in another slot than the stream. The deadline is by
-- this server's clock. It is even for a reservation or a guardian's lease, and odd for a registration or a beat. So a caller that
-- takes its reservation back never removes a registration.
-- KEYS index    ARGV S, ms until the deadline, ttl in ms, NX or '', 1 for odd or 0 for even
-- Returns the deadline; 0 if the stream is there already and NX was asked for. O(log streams).
if ARGV[4] == 'NX' and redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local deadline = now() + tonumber(ARGV[2])
if deadline % 2 ~= tonumber(ARGV[5]) then
  deadline = deadline - 1
end
watch(KEYS[1], ARGV[1], deadline, tonumber(ARGV[3]))
return deadline
