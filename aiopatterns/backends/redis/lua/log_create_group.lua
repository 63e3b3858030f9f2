-- Make a group.  KEYS: 1 stream, 2 groups.  ARGV: 1 group, 2 the id behind which it starts or '$'.
-- Returns 1, or 0 if it exists.
local start = ARGV[2]
if start == '$' then
  start = '0-0'
  if redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then start = info[i + 1] end
    end
  end
end
return redis.call('HSETNX', KEYS[2], ARGV[1], start)
