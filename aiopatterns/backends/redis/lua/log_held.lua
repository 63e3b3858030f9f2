-- What a consumer holds.
-- KEYS: 1 stream, 2 groups, 3 own, 4 body.  ARGV: 1 group, 2 consumer.
-- Returns {id, payload, deliveries, ...}, or false if there is no such group.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return false end
local answer, n = {}, 0
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  local deliveries, who = string.match(all[i + 1], '^(%d+):%d+:(.*)$')
  if who == ARGV[2] then
    local id = all[i]
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    local body = redis.call('HGET', KEYS[4], id) or (entry and entry[2][2])
    if body then
      answer[n + 1], answer[n + 2], answer[n + 3] = id, body, tonumber(deliveries)
      n = n + 3
    end
  end
end
return answer
