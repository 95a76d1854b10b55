-- trim: drops a log's oldest entries, until it holds at most so many events and bytes.
-- KEYS log    ARGV max events, max bytes
-- Returns how many events and bytes the log had taken in up to what is dropped. O(entries dropped).
local dropped_events, dropped_bytes = trim(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
return { int(dropped_events), int(dropped_bytes) }
