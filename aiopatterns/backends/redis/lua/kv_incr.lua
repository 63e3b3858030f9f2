-- Add to the whole number under a key; its life is given only to a key that this call creates.
-- KEYS[1] the key.  ARGV[1] what to add, ARGV[2] life in ms or ''.
-- Returns the sum as text, for Lua's numbers are too short, or false if there is no such sum.
local created = ARGV[2] ~= '' and redis.call('EXISTS', KEYS[1]) == 0
local added = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(added) == 'table' then
  if string.find(added.err, 'not an integer', 1, true) or string.find(added.err, 'overflow', 1, true) then
    return false
  end
  return added
end
if created then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])
