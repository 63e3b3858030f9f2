-- Hold on to a lease.  KEYS, ARGV as in lease_acquire.  Returns 1, or 0 if it was lost.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'h', 'd')
if held[1] ~= ARGV[1] or tonumber(held[2]) <= now then return 0 end
-- First, for it never grows memory: after it a full server takes the rest as well.
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[2] + ARGV[3]))
redis.call('HSET', KEYS[1], 'd', string.format('%.0f', now + ARGV[2] * 1000))
return 1
