-- Remove the oldest entries that no group needs any more.
-- KEYS: 1 stream, 2 groups, 3... what each group holds and has parked.  ARGV: 1 entries to keep, 2... the groups.
-- Returns how many were removed, or -1 if there are other groups by now.
local call = redis.call
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(id, other)
  local ms, seq = parse(id)
  local other_ms, other_seq = parse(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

if call('HLEN', KEYS[2]) ~= #ARGV - 1 then return -1 end
local handed, needed -- handed out in every group up to here; held or parked from here on
for i = 2, #ARGV do
  local last = call('HGET', KEYS[2], ARGV[i])
  if not last then return -1 end
  if not handed or before(last, handed) then handed = last end
  for key = 2 * i - 1, 2 * i do
    for _, id in ipairs(call('HKEYS', KEYS[key])) do
      if not needed or before(id, needed) then needed = id end
    end
  end
end

local surplus, place, first = call('XLEN', KEYS[1]) - ARGV[1], '-', nil
local left = surplus
while left > 0 and not first do
  local entries = call('XRANGE', KEYS[1], place, '+', 'COUNT', math.min(left, 500))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local id = entry[1]
    if (handed and before(handed, id)) or (needed and not before(id, needed)) then
      first = id
      break
    end
    place, left = '(' .. id, left - 1
  end
end
if left == surplus or surplus <= 0 then return 0 end
first = first or (call('XRANGE', KEYS[1], place, '+', 'COUNT', 1)[1] or {})[1]
if first then return call('XTRIM', KEYS[1], 'MINID', '=', first) end
return call('XTRIM', KEYS[1], 'MAXLEN', '=', 0)
