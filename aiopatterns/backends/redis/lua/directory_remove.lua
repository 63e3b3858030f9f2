-- Remove a member.
-- KEYS as in directory_put.  ARGV: 1 member, 2 fence or '', 3 the channel to tell.
-- Returns 1, or 0 if it was absent or a higher fence is stored.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expiry or tonumber(expiry) <= now then return 0 end
local fence = string.match(redis.call('HGET', KEYS[1], ARGV[1]), '^%d+')
if ARGV[2] ~= '' and tonumber(fence) > tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
local revision = math.max(now, tonumber(redis.call('GET', KEYS[3]) or 0) + 1)
redis.call('SET', KEYS[3], string.format('%.0f', revision), 'KEEPTTL')
redis.call('PUBLISH', ARGV[3], '')
return 1
