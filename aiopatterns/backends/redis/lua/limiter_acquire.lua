-- Take from a rate: the arithmetic of gcra.py, line by line.
-- KEYS[1] string 'level at': what was owed at an instant in us.
-- ARGV: 1 us in which one unit drains, 2 burst, 3 cost.
-- Returns {1 or 0, the level after the call as text}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local owed = 0
local stored = redis.call('GET', KEYS[1])
if stored then
  local level, at = string.match(stored, '^(%S+) (%S+)$')
  local elapsed = math.max(0, now - tonumber(at))
  owed = math.max(0, tonumber(level) - elapsed / interval)
end
if cost > burst or (owed + cost - burst) * interval > 0.01 then
  return {0, string.format('%.17g', owed)}
end
if cost > 0 then
  owed = owed + cost
  local life = math.min(math.max(1, math.ceil(owed * interval / 1000)), 1e15)
  local level = string.format('%.17g', owed)
  redis.call('SET', KEYS[1], level .. ' ' .. string.format('%.0f', now), 'PX', string.format('%.0f', life))
end
return {1, string.format('%.17g', owed)}
