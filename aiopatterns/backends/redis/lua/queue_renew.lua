-- Renew the lease of a worker that is known. ARGV: 1 worker, 2 ms. Returns 1 if it was, else 0.
redis.call('EXISTS', KEYS[1] .. ':moving', KEYS[1] .. ':moved') -- see queue_common.lua
local clock = redis.call('TIME')
local workers = KEYS[1] .. ':workers'
if not redis.call('ZSCORE', workers, ARGV[1]) then return 0 end
-- A full server takes what grows once something was written that does not.
redis.call('ZREM', workers, '')
redis.call('ZADD', workers, clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[2], ARGV[1])
return 1
