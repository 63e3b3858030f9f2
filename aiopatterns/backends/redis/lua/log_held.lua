-- What a consumer holds.
-- KEYS: 1 stream, 2 groups, 3 own, 4 idle, 5 body.  ARGV: 1 group, 2 consumer.
-- Returns {id, payload, deliveries, ...}, or false if there is no such group.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return false end
local answer = {}
local ids = redis.call('ZRANGE', KEYS[4], 0, -1)
for first = 1, #ids, 1000 do
  local last = math.min(first + 999, #ids)
  for i, owner in ipairs(redis.call('HMGET', KEYS[3], unpack(ids, first, last))) do
    local deliveries, who = string.match(owner or '', '^h(%d+):(.*)$')
    if who == ARGV[2] then
      local id = ids[first + i - 1]
      local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
      local body = redis.call('HGET', KEYS[5], id) or (entry and entry[2][2])
      if body then
        local n = #answer
        answer[n + 1], answer[n + 2], answer[n + 3] = id, body, tonumber(deliveries)
      end
    end
  end
end
return answer
