-- Write a key if it holds what is expected, and tell who listens.
-- KEYS[1] the key.  ARGV: 1 'absent' or 'equal', 2 what it must equal, 3 'set' or 'delete',
-- 4 the new value, 5 its life in ms or '', 6 the channel to tell or '', 7 what to tell.
-- Returns 1 if it was written, else 0.
local held = redis.call('GET', KEYS[1])
if ARGV[1] == 'absent' then
  if held then return 0 end
elseif held ~= ARGV[2] then
  return 0
end
if ARGV[3] == 'delete' then
  redis.call('DEL', KEYS[1])
elseif ARGV[5] == '' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('PUBLISH', ARGV[6], ARGV[7])
end
return 1
