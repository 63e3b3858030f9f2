-- Take a lease if nobody holds it.
-- KEYS[1] hash: h holder, d deadline in us, t token, r who released it last.
-- ARGV: 1 the caller's nonce, 2 life in ms, 3 ms for which the token is kept after that.
-- Returns the token as text, or false. The same nonce again gets the same answer.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'h', 'd', 't')
if held[1] and tonumber(held[2]) > now then
  if held[1] == ARGV[1] then return held[3] end
  return false
end
local token = now
if held[3] and tonumber(held[3]) >= now then token = tonumber(held[3]) + 1 end
local written = string.format('%.0f', token)
local deadline = string.format('%.0f', now + ARGV[2] * 1000)
redis.call('HSET', KEYS[1], 'h', ARGV[1], 'd', deadline, 't', written)
redis.call('HDEL', KEYS[1], 'r')
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[2] + ARGV[3]))
return written
