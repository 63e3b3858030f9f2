-- All that a group has in hands or parked.
-- KEYS: 1 groups, 2 own, 3 parked.  ARGV: 1 group.
-- Returns {now in us, {id, owner, ...}, {id, what is noted of it, ...}}, or false if there is no
-- such group.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000000 + clock[2])
return {now, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
