-- Forget a group.  KEYS: 1 groups, 2 meta, 3... all that belongs to it.  ARGV: 1 group.
-- Returns 1, or 0 if there was none.
local there = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'oldest:' .. ARGV[1])
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
return there
