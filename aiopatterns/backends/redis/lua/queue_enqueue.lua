-- Add jobs, in order. ARGV: 1 channel, 2 '1' if all are plain and run at once; then of plain jobs
-- id, value; of others id, value, ms of delay, ms since 1970 or ''.
-- Returns 1 if all were added, else for each the id that stands instead, or ''.
local function add_plain()
  local tag, ids, lanes, names = KEYS[1], {}, {}, {}
  for i = 3, #ARGV, 2 do
    ids[#ids + 1], names[#names + 1] = ARGV[i], tag .. ':res:' .. ARGV[i]
    local priority = string.byte(ARGV[i + 1], 2)
    local lane = lanes[priority] or {}
    lanes[priority], lane[#lane + 1] = lane, ARGV[i]
  end
  if redis.call('EXISTS', tag .. ':ended', tag .. ':watch', unpack(names)) > 0 then return false end
  for _, found in ipairs(redis.call('HMGET', tag .. ':jobs', unpack(ids))) do
    if found then return false end
  end
  if redis.call('EXISTS', tag .. ':dead') == 1 then
    for _, found in ipairs(redis.call('ZMSCORE', tag .. ':dead', unpack(ids))) do
      if found then return false end
    end
  end
  redis.call('HSET', tag .. ':jobs', unpack(ARGV, 3))
  for priority, lane in pairs(lanes) do
    redis.call('RPUSH', tag .. ':lane:' .. priority, unpack(lane))
  end
  if not redis.call('HGET', tag .. ':ctl', 'paused') then redis.call('ZADD', tag .. ':wake', 0, 1) end
  return true
end
if ARGV[2] == '1' and add_plain() then return 1 end

-- include queue_common

local function is_known(id)
  return call('HEXISTS', JOBS, id) == 1 or (has(ENDED) and call('ZSCORE', ENDED, id))
    or ended_state(id) ~= 'unknown'
end
local function until_start(mode) return mode == 'b' or mode == 'k' end
-- Start the delay of one anew that has not started.
local function postpone(id, value, at)
  if has(WAITS) and call('ZSCORE', WAITS, id) then
    call('HSET', LATER, id, at)
  elseif at > now then
    withdraw(id, value)
    forget(id)
    schedule(id, priority_of(value), at)
  end
end
-- The job that has the key, changed as the mode of the new one says.
local function first(unique, body, at)
  local holder = call('HGET', UNIQ, unique[1])
  if not holder then return call('GET', WINDOW .. unique[1]) end
  local id = string.sub(holder, 2)
  if until_start(unique[2]) and until_start(string.sub(holder, 1, 1)) then
    local value = call('HGET', JOBS, id)
    call('HSET', JOBS, id, split(value) .. body)
    if unique[2] == 'b' then postpone(id, value, at) end
  end
  return id
end
-- Make one wait for its parents: for how many, and whether one of them has ended badly.
local function tie(id, more)
  local left, doomed = 0, false
  for _, parent in ipairs(more[1]) do
    local well = has(ENDED) and call('ZSCORE', ENDED, parent)
    if well then
      doomed = doomed or well == '0'
    elseif call('HEXISTS', JOBS, parent) == 1 then
      left = left + call('ZADD', KIDS .. parent, 'NX', 1, id)
    else
      local state = ended_state(parent)
      doomed = doomed or state == 'dead' or state == 'cancelled'
    end
  end
  local last = last_of(more[2])
  if last then left = left + call('ZADD', KIDS .. last, 'NX', 0, id) end
  return left, doomed
end
local function take_key(id, unique)
  call('HSET', UNIQ, unique[1], unique[2] .. id)
  if unique[2] == 't' and unique[3] > 0 then call('SET', WINDOW .. unique[1], id, 'PX', unique[3]) end
end
local function place(id, value, left, at)
  if left > 0 then
    call('ZADD', WAITS, left, id)
    present[WAITS] = true
    if at > now then call('HSET', LATER, id, at) end
  elseif at > now then
    schedule(id, priority_of(value), at)
  else
    enqueue_at(id, priority_of(value))
  end
end
local function add(id, value, at)
  if is_known(id) then return id end
  local more, header, body = extras(value), split(value)
  local unique = more[2]
  local other = unique and first(unique, body, at)
  if other then return other end
  call('HSET', JOBS, id, value)
  tell('queued', id)
  local left, doomed = tie(id, more)
  if unique then take_key(id, unique) end
  if doomed then
    untie(id, more)
    finish(id, value, 'cancelled', '', 0)
  else
    place(id, value, left, at)
  end
  return ''
end

local answers, width = {}, ARGV[2] == '1' and 2 or 4
for i = 3, #ARGV, width do
  local at = 0
  if width == 4 then at = ARGV[i + 3] == '' and now + ARGV[i + 2] or tonumber(ARGV[i + 3]) end
  answers[#answers + 1] = add(ARGV[i], ARGV[i + 1], at)
end
flush()
work_off()
ring(call('HGET', CTL, 'paused'))
publish(ARGV[1])
return answers
