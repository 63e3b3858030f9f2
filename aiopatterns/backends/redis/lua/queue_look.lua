-- What is known of jobs, or how many are where. ARGV: 1 what; then the ids.

-- include queue_common

local verbs = {}
-- The state of each.
function verbs.states()
  local ids, states = {}, {}
  for i = 2, #ARGV do ids[i - 1] = ARGV[i] end
  local running = {}
  for _, name in ipairs(call('ZRANGE', WORKERS, 0, -1)) do
    for i, held in ipairs(call('SMISMEMBER', RUN .. name, unpack(ids))) do
      if held == 1 then running[ids[i]] = true end
    end
  end
  for i, id in ipairs(ids) do
    local value = call('HGET', JOBS, id)
    if not value then states[i] = ended_state(id)
    elseif running[id] then states[i] = 'running'
    elseif has(WAITS) and call('ZSCORE', WAITS, id) then states[i] = 'waiting'
    elseif has(DUE) and call('ZSCORE', DUE, priority_of(value) .. id) then states[i] = 'scheduled'
    else states[i] = 'queued' end
  end
  return states
end
-- Of each, the outcome as it is kept, or the dead letter, or ''.
function verbs.outcomes()
  local found = {}
  for i = 2, #ARGV do
    local state, kept = ended_state(ARGV[i])
    if state == 'dead' then kept = 'x' .. call('HGET', LETTERS, ARGV[i]) end
    found[i - 1] = kept or ''
  end
  return found
end
function verbs.counts()
  local queued, running = 0, 0
  for priority = 0, 9 do queued = queued + call('LLEN', LANE .. priority) end
  queued = queued - tonumber(call('HGET', GONE, '') or 0) + call('HLEN', PARKED) + call('ZCARD', SUSPECTS)
  for _, name in ipairs(call('ZRANGE', WORKERS, 0, -1)) do running = running + call('SCARD', RUN .. name) end
  local dead = call('ZCOUNT', DEAD, '(' .. string.format('%.0f', OLD_LETTER), '+inf')
  local alive = call('ZRANGEBYSCORE', WORKERS, '(' .. string.format('%.0f', now), '+inf')
  local paused = call('HEXISTS', CTL, 'paused')
  return { queued, call('ZCARD', DUE), call('ZCARD', WAITS), running, dead, alive, paused }
end
return verbs[ARGV[1]]()
