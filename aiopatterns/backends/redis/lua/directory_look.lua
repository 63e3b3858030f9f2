-- Look at a directory, unless nothing has changed since.
-- KEYS as in directory_put.  ARGV: 1 the revision that the caller has or '', 2 ms for which the
-- keys outlive every member, 3 the channel to tell.
-- Returns {revision, member, 'fence:data', ...}, or {revision} if the caller has that one.

-- include whole

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local revision = redis.call('GET', KEYS[3])
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for first = 1, #gone, 1000 do
  local last = math.min(first + 999, #gone)
  redis.call('HDEL', KEYS[1], unpack(gone, first, last))
  redis.call('ZREM', KEYS[2], unpack(gone, first, last))
end
if #gone > 0 or not revision then
  revision = string.format('%.0f', math.max(now, tonumber(revision or 0) + 1))
  redis.call('SET', KEYS[3], revision, 'KEEPTTL')
  redis.call('PUBLISH', ARGV[3], '')
end
-- While somebody looks, the revision of an empty directory stays as well.
local life = tonumber(ARGV[2])
if redis.call('PTTL', KEYS[3]) < life / 2 then redis.call('PEXPIRE', KEYS[3], life) end
if revision == ARGV[1] then return {revision} end
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, revision)
return answer
