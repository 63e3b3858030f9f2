-- Write a key if it holds what is expected, and tell who listens.
-- KEYS[1] the key.  ARGV: 1 'absent', 'equal' or 'any', 2 what it must equal, 3 'set' or 'delete',
-- 4 the new value, 5 its life in ms or '', 6 the channel to tell or '', 7 what to tell,
-- 8 the time in ms since 1970 from which on it is too late, or ''.
-- Returns 1 if it was written, else 0.
if ARGV[8] ~= '' then
  local now = redis.call('TIME')
  if now[1] * 1000 + now[2] / 1000 >= tonumber(ARGV[8]) then return 0 end
end
if ARGV[1] ~= 'any' then
  local held = redis.call('GET', KEYS[1])
  if ARGV[1] == 'absent' then
    if held then return 0 end
  elseif held ~= ARGV[2] then
    return 0
  end
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
