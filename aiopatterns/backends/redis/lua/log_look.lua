-- Whether a group has something to claim, and what to wait for if not.
-- KEYS: 1 stream, 2 groups, 3 due, 4 bell.  ARGV: 1 group.
-- Returns {1} if it has, else {0, last id of the group, last id of the bell, ms to the next retry
-- or -1}; false if there is no such group.
local last = redis.call('HGET', KEYS[2], ARGV[1])
if not last then return false end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
if #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1) > 0 then return {1} end
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
if due and tonumber(due) <= now then return {1} end
local rung = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local wait = due and math.ceil((tonumber(due) - now) / 1000) or -1
return {0, last, rung and rung[1] or '0-0', string.format('%.0f', wait)}
