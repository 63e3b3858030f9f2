-- Hand out dead letters again, with their payloads, for the log may not have them any more.
-- KEYS: 1 groups, 2 parked, 3 due, 4 body, 5 dead, 6 graves, 7 bell.
-- ARGV: 1 group, 2 ms for which a bell is kept, 3... ids.
-- Returns how many there were, or false if there is no such group.

-- include whole

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local count = 0
for i = 3, #ARGV do
  local id = ARGV[i]
  local record = redis.call('HGET', KEYS[5], id)
  if record then
    count = count + 1
    redis.call('HDEL', KEYS[5], id)
    redis.call('ZREM', KEYS[6], id)
    local size, rest = string.match(record, '^%d+:(%d+):()')
    redis.call('HSET', KEYS[4], id, string.sub(record, rest + size))
    redis.call('HSET', KEYS[2], id, string.format('0:%.0f', now))
    redis.call('ZADD', KEYS[3], string.format('%.0f', now - (#ARGV - i)), id)
  end
end
if count > 0 then
  redis.call('XADD', KEYS[7], 'MAXLEN', 1, '*', 'due', 1)
  redis.call('PEXPIRE', KEYS[7], ARGV[2])
end
return count
