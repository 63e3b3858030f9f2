-- How many entries a group has not claimed.
-- KEYS: 1 stream, 2 meta, 3 groups.  ARGV: 1 group.
-- Entries are numbered as they are appended, so two looks tell, unless single ones were deleted
-- behind the group's place; then they are counted.
-- Returns the number, or false if there is no such group.
local last = redis.call('HGET', KEYS[3], ARGV[1])
if not last then return false end
local first = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
if not first then return 0 end

local function before(id, other)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(seq) < tonumber(other_seq)
end

local hole = redis.call('HGET', KEYS[2], 'hole')
if not hole or before(hole, first[1]) then
  local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  return newest[2][4] - first[2][4] + 1
end
local count, place = 0, last
while true do
  local entries = redis.call('XRANGE', KEYS[1], '(' .. place, '+', 'COUNT', 1000)
  if #entries == 0 then return count end
  count = count + #entries
  place = entries[#entries][1]
end
