-- Add, change or renew a member.
-- KEYS: 1 hash member -> 'fence:data', 2 zset of expiries in us, 3 the revision.
-- ARGV: 1 member, 2 data, 3 fence, 4 life in ms, 5 ms for which the keys outlive every member,
-- 6 the channel to tell.
-- Returns 1, or 0 if a higher fence is stored.

-- include whole

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local record = ARGV[3] .. ':' .. ARGV[2]
local deadline = string.format('%.0f', now + ARGV[4] * 1000)

local function outlive(life)
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < life then
      redis.call('PEXPIRE', key, string.format('%.0f', life))
    end
  end
end

local function changed()
  local revision = math.max(now, tonumber(redis.call('GET', KEYS[3]) or 0) + 1)
  redis.call('SET', KEYS[3], string.format('%.0f', revision), 'KEEPTTL')
  redis.call('PUBLISH', ARGV[6], '')
end

-- Some of those whose time is over leave with every put; a look takes all.
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
local stored = expiry and tonumber(expiry) > now and redis.call('HGET', KEYS[1], ARGV[1])

if stored and tonumber(string.match(stored, '^%d+')) > tonumber(ARGV[3]) then
  if #gone > 0 then changed() end
  outlive(tonumber(ARGV[5]))
  return 0
end
if stored == record then
  -- The longer life comes first: it grows nothing, and after it a full server takes the rest too.
  outlive(ARGV[4] + ARGV[5])
else
  redis.call('HSET', KEYS[1], ARGV[1], record)
end
redis.call('ZADD', KEYS[2], deadline, ARGV[1])
if #gone > 0 or stored ~= record then changed() end
outlive(ARGV[4] + ARGV[5])
return 1
