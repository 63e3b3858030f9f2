-- Requeue or purge dead letters, pause. ARGV: 1 channel, 2 what; then its arguments.

-- include queue_common

local verbs = {}
-- Queue dead letters again: ids. Returns how many.
function verbs.requeue()
  local found = 0
  for i = 3, #ARGV do
    local id = ARGV[i]
    if ended_state(id) == 'dead' then
      local size, rest = string.match(call('HGET', LETTERS, id), '^%d+ (%d+):()')
      local value = string.sub(call('HGET', LETTERS, id), rest + size)
      call('HSET', JOBS, id, value)
      drop_letters({ id })
      enqueue_at(id, priority_of(value))
      tell('queued', id)
      found = found + 1
    end
  end
  return found
end
-- Remove dead letters: ids. Returns how many.
function verbs.purge()
  local found = {}
  for i = 3, #ARGV do
    if ended_state(ARGV[i]) == 'dead' then found[#found + 1] = ARGV[i] end
  end
  local before = call('ZCARD', DEAD)
  drop_letters(found)
  return before - call('ZCARD', DEAD)
end
-- Remove the oldest batch. Returns how many, and whether some are left.
function verbs.purge_all()
  drop_letters(call('ZRANGEBYSCORE', DEAD, '-inf', OLD_LETTER, 'LIMIT', 0, BATCH))
  local ids = call('ZRANGE', DEAD, 0, BATCH - 1)
  drop_letters(ids)
  return { #ids, call('EXISTS', DEAD) }
end
-- '1' or '0'.
function verbs.pause()
  if ARGV[3] == '1' then call('HSET', CTL, 'paused', 1) else call('HDEL', CTL, 'paused') end
  return 1
end
local reply = verbs[ARGV[2]]()
ring(call('HGET', CTL, 'paused'))
publish(ARGV[1])
return reply
