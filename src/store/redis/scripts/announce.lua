-- announce: tells the node that produces a stream that it is followed in another process.
-- KEYS stream    ARGV node channels' prefix, message, then the nodes of the process that asks
-- Returns that node; '' if nobody produces the stream, or the asking process itself. O(nodes of the process).
local held = look(KEYS[1], 'state', 'node')
local node = held[1] == 'active' and held[2] or ''
for i = 3, #ARGV do
  if ARGV[i] == node then
    return ''
  end
end
if node ~= '' then
  redis.call('PUBLISH', ARGV[1] .. node, ARGV[2])
end
return node
