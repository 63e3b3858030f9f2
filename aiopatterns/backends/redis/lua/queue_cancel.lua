-- Cancel jobs. ARGV: 1 channel, 2 ms for which a call for a worker is kept; then the ids.
-- Returns {states}, and 1 if dependents are left over.

-- include queue_common

local ids, holders = {}, {}
for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
if #ids > 0 then
  for _, name in ipairs(call('ZRANGE', WORKERS, 0, -1)) do
    for i, held in ipairs(call('SMISMEMBER', RUN .. name, unpack(ids))) do
      if held == 1 then holders[ids[i]] = name end
    end
  end
end
local function cancel(id)
  local value = call('HGET', JOBS, id)
  if not value then return (ended_state(id)) end
  local name = holders[id]
  if name then
    call('SADD', STOP, id)
    call('ZADD', WAKE .. ':' .. name, 0, 1)
    call('PEXPIRE', WAKE .. ':' .. name, ARGV[2])
    return 'running'
  end
  withdraw(id, value)
  finish(id, value, 'cancelled', '', tries_of(id))
  return 'cancelled'
end
-- Entries of lanes that are to be skipped are swept out once most are such.
local function sweep()
  local stale = tonumber(call('HGET', GONE, '') or 0)
  local live = call('HLEN', JOBS)
  if live > 0 and (stale < 1000 or stale < live) then return end
  for priority = 0, 9 do
    local lane, real = LANE .. priority, {}
    for _, id in ipairs(call('LRANGE', lane, 0, -1)) do
      if not (has(GONE) and is_gone(id, priority)) then real[#real + 1] = id end
    end
    call('DEL', lane)
    for i = 1, #real, BATCH do
      call('RPUSH', lane, unpack(real, i, math.min(i + BATCH - 1, #real)))
    end
  end
end

local states = {}
for i, id in ipairs(ids) do states[i] = cancel(id) end
flush()
local left = work_off()
if call('EXISTS', GONE) == 1 then sweep() end
ring(call('HGET', CTL, 'paused'))
publish(ARGV[1])
return { states, left and 1 or 0 }
