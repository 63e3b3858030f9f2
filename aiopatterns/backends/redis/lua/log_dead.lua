-- The newest dead letters.
-- KEYS: 1 groups, 2 dead, 3 graves.  ARGV: 1 group, 2 limit.
-- Returns {id, record, ...}, newest first, or false if there is no such group.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local answer = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[3], 0, ARGV[2] - 1)) do
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call('HGET', KEYS[2], id)
end
return answer
