-- announce: tells the producing node of a stream that another process follows the stream.
-- KEYS stream    ARGV node channels' prefix, message, then the nodes of the calling process
-- Returns the producing node, or '' if the stream has no producer or the calling process produces it. O(nodes of the process).
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
