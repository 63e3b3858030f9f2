-- Append entries, once for each token.
-- KEYS: 1 stream, 2 meta (n: entries appended ever), 3 the token.
-- ARGV: 1 ms for which the token is known, 2 length to trim to or '', 3... payloads.
-- Returns 'id count': the first id; the others follow it without a gap.
local before = redis.call('GET', KEYS[3])
if before then return before end
local count = #ARGV - 2
local n = tonumber(redis.call('HGET', KEYS[2], 'n') or 0)
local first = redis.call('XADD', KEYS[1], '*', 'p', ARGV[3], 'n', n + 1)
local ms, seq = string.match(first, '^(%d+)-(%d+)$')
for i = 2, count do
  local id = string.format('%s-%.0f', ms, seq + i - 1)
  redis.call('XADD', KEYS[1], id, 'p', ARGV[i + 2], 'n', n + i)
end
if ARGV[2] ~= '' then redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2]) end
redis.call('HSET', KEYS[2], 'n', n + count)
local answer = first .. ' ' .. count
redis.call('SET', KEYS[3], answer, 'PX', ARGV[1])
return answer
