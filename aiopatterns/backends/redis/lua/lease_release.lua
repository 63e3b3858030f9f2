-- Give a lease back; its token stays for a while, and who released it, for a repeated call.
-- KEYS[1] as in lease_acquire.  ARGV: 1 the nonce, 2 ms for which the token is kept.
-- Returns 1, or 0 if it was lost before.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'h', 'd', 'r')
if held[3] == ARGV[1] then return 1 end
if held[1] ~= ARGV[1] or tonumber(held[2]) <= now then return 0 end
redis.call('HDEL', KEYS[1], 'h', 'd')
redis.call('HSET', KEYS[1], 'r', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
