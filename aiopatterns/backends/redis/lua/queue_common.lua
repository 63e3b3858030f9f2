-- What the scripts of the queue share; see redis/queue.py for the keys and memory/queuemachine.py
-- for the same machine in Python. KEYS: 1 the queue's tag. Everything below begins with it.
local q, call = KEYS[1], redis.call
local JOBS, TRIES, DUE, RUN = q .. ':jobs', q .. ':tries', q .. ':due', q .. ':run:'
local WORKERS, TURNS, CTL, WAKE = q .. ':workers', q .. ':turns', q .. ':ctl', q .. ':wake'
local LANE, GONE, SUSPECTS, MARKED = q .. ':lane:', q .. ':gone', q .. ':suspects', q .. ':marked'
local WAITS, LATER, KIDS, ENDED = q .. ':waits', q .. ':later', q .. ':kids:', q .. ':ended'
local UNIQ, LAST, WINDOW, RESULT = q .. ':uniq', q .. ':last', q .. ':win:', q .. ':res:'
local BUSY, PARK, PARKED, RATE = q .. ':busy', q .. ':park:', q .. ':parked', q .. ':rate:'
local RANKS, PROMISED, STOP, PROGRESS = q .. ':ranks', q .. ':promised', q .. ':stop', q .. ':prog'
local DEAD, LETTERS, WATCH = q .. ':dead', q .. ':letters', q .. ':watch'
local DEAD_LIMIT, DEAD_TTL, BATCH, DEPENDENTS = 10000, 604800000, 500, 1000
local AFTER, UNIQUE, LIMITS = 1, 2, 4
local STEP = 1099511627776 -- of the score of a parked job, from one priority to the next

-- While a cluster moves the slot, a command over several keys that are not there is refused, by
-- the old node and by the new one: so nothing below is ever half done between the two.
call('EXISTS', q .. ':moving', q .. ':moved')
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Most keys are absent most of the time: what is known of them is remembered.
local present = {}
local function has(key)
  local found = present[key]
  if found == nil then
    found = call('EXISTS', key) == 1
    present[key] = found
  end
  return found
end

-- --------------------------------------------------------------------------------- events
local EVENT = { queued = 1, started = 2, progress = 3, retrying = 4, done = 5, dead = 6, cancelled = 7 }
local events = {}
local function tell(kind, id, data)
  if has(WATCH) then
    data = data or ''
    events[#events + 1] = struct.pack('>BI2I4', EVENT[kind], #id, #data) .. id .. data
  end
end
local function publish(channel)
  if #events > 0 then call('PUBLISH', channel, table.concat(events)) end
end

-- ------------------------------------------------------------------------------ job values
-- flags 1, priority 1, attempts 4, keep 8 [, size 4, extras], body; extras are a msgpack list of
-- after, {key, mode, window} or false, and {key, concurrency or 0, interval or 0, slack} each.
local function is(value, flag) return bit.band(string.byte(value, 1), flag) ~= 0 end
local function priority_of(value) return string.byte(value, 2) end
local function split(value)
  if string.byte(value, 1) == 0 then return string.sub(value, 1, 14), string.sub(value, 15) end
  local last = 18 + struct.unpack('>I4', value, 15)
  return string.sub(value, 1, last), string.sub(value, last + 1)
end
local NONE = { {}, false, {} }
local function extras(value)
  if string.byte(value, 1) == 0 then return NONE end
  return cmsgpack.unpack(string.sub(value, 19, 18 + struct.unpack('>I4', value, 15)))
end

-- ---------------------------------------------------------------------------------- places
local news = false -- suspects have come that no worker was told of
local function enqueue_at(id, priority, head)
  local since = has(MARKED) and call('HGET', MARKED, id)
  if since then
    call('ZADD', SUSPECTS, since, id)
    present[SUSPECTS], news = true, true
  else
    call(head and 'LPUSH' or 'RPUSH', LANE .. priority, id)
  end
end
-- To the heads of their lanes; pairs of id and priority, in order.
local function push(pairs_)
  for i = #pairs_, 1, -1 do enqueue_at(pairs_[i][1], pairs_[i][2], true) end
end
local function schedule(id, priority, at)
  call('ZADD', DUE, at, priority .. id)
  present[DUE] = true
end
local function any_lane()
  return call('EXISTS', LANE .. 0, LANE .. 1, LANE .. 2, LANE .. 3, LANE .. 4,
    LANE .. 5, LANE .. 6, LANE .. 7, LANE .. 8, LANE .. 9) > 0
end
-- Ms at which the next scheduled job is due, or nil.
local function next_due()
  return has(DUE) and tonumber(call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]) or nil
end
local due_before = next_due()
-- Wake one worker if there is work, or something to know: a due time earlier than all before, or
-- one that only a busy worker knows (told). If there is nothing whoever comes waits.
local function ring(paused, told)
  local lanes, due = any_lane(), next_due()
  if (lanes and not paused) or (news and call('EXISTS', SUSPECTS) == 1)
      or (due and (told or due < (due_before or math.huge))) then
    call('ZADD', WAKE, 0, 1)
  elseif not lanes and call('EXISTS', SUSPECTS) == 0 then
    call('DEL', WAKE)
  end
  return lanes, due
end

-- ---------------------------------------------------------------------------------- limits
local offered, offers = {}, {}
local function offer_to(bucket)
  if not offers[bucket] then offered[#offered + 1], offers[bucket] = bucket, 0 end
  offers[bucket] = offers[bucket] + 1
end
local function has_room(bucket)
  return bucket[2] == 0 or tonumber(call('HGET', BUSY, bucket[1]) or 0) < bucket[2]
end
local function offer(limits)
  for _, bucket in ipairs(limits) do
    if call('EXISTS', PARK .. bucket[1]) == 1 and has_room(bucket) then offer_to(bucket[1]) end
  end
end
local function free_places(limits)
  for _, bucket in ipairs(limits) do
    if bucket[2] > 0 then
      if call('HINCRBY', BUSY, bucket[1], -1) <= 0 then call('HDEL', BUSY, bucket[1]) end
      offer_to(bucket[1])
    end
  end
end
-- Send those to whom places were offered to the heads of their lanes.
local function flush()
  local out = {}
  for _, bucket in ipairs(offered) do
    for _ = 1, offers[bucket] do
      local first = call('ZPOPMIN', PARK .. bucket)
      if #first == 0 then break end
      call('HDEL', PARKED, first[1])
      out[#out + 1] = { first[1], 9 - math.floor(first[2] / STEP) }
    end
  end
  offered, offers = {}, {}
  push(out)
end
-- Drop what is remembered of one that will not start now.
local function forget(id)
  if has(PROMISED) then call('SREM', PROMISED, id) end
  if has(RANKS) and call('HDEL', RANKS, id) == 1 and call('HLEN', RANKS) == 1 then
    call('DEL', RANKS)
    present[RANKS] = false
  end
end

-- ----------------------------------------------------------------------------------- edges
local function end_edges(id, well)
  if has(WAITS) and call('EXISTS', KIDS .. id) == 1 then
    call('ZADD', ENDED, well and 1 or 0, id)
    present[ENDED] = true
  end
end
local function last_of(unique)
  return unique and unique[2] == 'k' and call('HGET', LAST, unique[1])
end
local function untie_from(id, parent)
  if call('ZREM', KIDS .. parent, id) == 1 and call('EXISTS', KIDS .. parent) == 0 then
    call('ZREM', ENDED, parent)
  end
end
local function untie(id, more)
  for _, parent in ipairs(more[1]) do untie_from(id, parent) end
  local last = last_of(more[2])
  if last then untie_from(id, last) end
end
local function leave_waiting(id)
  call('ZREM', WAITS, id)
  call('HDEL', LATER, id)
end

-- ------------------------------------------------------------------------------------- end
local function end_unique(id, unique)
  local key = unique[1]
  if string.sub(call('HGET', UNIQ, key) or '', 2) == id then call('HDEL', UNIQ, key) end
  if last_of(unique) == id then call('HDEL', LAST, key) end
end
local function drop_letters(ids)
  if #ids > 0 then
    call('ZREM', DEAD, unpack(ids))
    call('HDEL', LETTERS, unpack(ids))
  end
end
-- Scores of letters are in microseconds, each above the last, so that they keep their order.
local OLD_LETTER = (now - DEAD_TTL) * 1000
local function bury(id, value, tries, err)
  local last = call('ZREVRANGE', DEAD, 0, 0, 'WITHSCORES')[2] or 0
  call('ZADD', DEAD, math.max(now * 1000, last + 1), id)
  call('HSET', LETTERS, id, tries .. ' ' .. #err .. ':' .. err .. value)
  call('PEXPIRE', DEAD, DEAD_TTL)
  call('PEXPIRE', LETTERS, DEAD_TTL)
  drop_letters(call('ZRANGEBYSCORE', DEAD, '-inf', OLD_LETTER, 'LIMIT', 0, BATCH))
  local surplus = call('ZCARD', DEAD) - DEAD_LIMIT
  if surplus > 0 then drop_letters(call('ZRANGE', DEAD, 0, math.min(surplus, BATCH) - 1)) end
end
-- A job that is in no place any more has come to its end.
local function finish(id, value, state, data, tries)
  call('HDEL', JOBS, id)
  if has(TRIES) then call('HDEL', TRIES, id) end
  if has(STOP) then call('SREM', STOP, id) end
  if has(MARKED) then call('HDEL', MARKED, id) end
  forget(id)
  if state == 'dead' then
    bury(id, value, tries, data)
  else
    local keep = struct.unpack('>I8', value, 7)
    if keep > 0 then
      local kept = state == 'done' and 'd' .. tries .. ':' .. data or 'c' .. tries .. ':'
      call('SET', RESULT .. id, kept, 'PX', keep)
    end
  end
  local more = extras(value)
  if more[2] then end_unique(id, more[2]) end
  end_edges(id, state == 'done')
  tell(state, id, state == 'dead' and data or '')
end
local function tries_of(id) return has(TRIES) and tonumber(call('HGET', TRIES, id) or 0) or 0 end

-- Release or cancel the dependents of what has ended; true if some are left over.
local function release(id, cancel)
  local left = tonumber(call('ZINCRBY', WAITS, -1, id))
  if left ~= 0 and not cancel then return end -- its value is long if it waits for many
  local value = call('HGET', JOBS, id)
  if cancel then
    leave_waiting(id)
    untie(id, extras(value))
    finish(id, value, 'cancelled', '', tries_of(id))
  else
    local at = tonumber(call('HGET', LATER, id) or 0)
    leave_waiting(id)
    if at > now then schedule(id, priority_of(value), at)
    else enqueue_at(id, priority_of(value)) end
  end
end
local function work_off()
  if not has(ENDED) then return false end
  local most = DEPENDENTS
  while most > 0 do
    local parent = call('ZRANGE', ENDED, 0, 0, 'WITHSCORES')
    if #parent == 0 then break end
    local kids = call('ZRANGE', KIDS .. parent[1], 0, most - 1, 'WITHSCORES')
    call('ZREMRANGEBYRANK', KIDS .. parent[1], 0, #kids / 2 - 1)
    if call('EXISTS', KIDS .. parent[1]) == 0 then call('ZREM', ENDED, parent[1]) end
    most = most - #kids / 2
    for i = 1, #kids, 2 do release(kids[i], kids[i + 1] == '1' and parent[2] == '0') end
  end
  flush()
  return call('EXISTS', ENDED) == 1
end

-- ---------------------------------------------------------------------------------- leaving
-- Whether a lane's entry is one to be skipped.
local function is_gone(id, priority)
  local field = priority .. id
  if not call('HGET', GONE, field) then return false end
  if call('HINCRBY', GONE, field, -1) == 0 then call('HDEL', GONE, field) end
  if call('HINCRBY', GONE, '', -1) == 0 then
    call('DEL', GONE)
    present[GONE] = false
  end
  return true
end
-- The last entry of a lane is not one to be skipped, so a lane that is there has a job. Only where
-- that would take long it may be: the rest of very many, and in a long lane one whose id is that of
-- a job again, here or elsewhere. These are skipped when they come up.
local LONG, trims = 1000, 1000
local function is_job(id, lane, stale)
  if call('HEXISTS', JOBS, id) == 0 then return false end
  return call('LLEN', lane) > LONG or #call('LPOS', lane, id, 'COUNT', 0) > stale
end
local function trim(lane, priority)
  while trims > 0 and has(GONE) do
    trims = trims - 1
    local last = call('LINDEX', lane, -1)
    local stale = last and tonumber(call('HGET', GONE, priority .. last) or 0) or 0
    if stale == 0 or is_job(last, lane, stale) then return end
    call('RPOP', lane)
    is_gone(last, priority)
  end
end
-- Take one out of its lane: at an end at once, else its entry is skipped when it comes up.
local function leave_lane(id, priority)
  local lane = LANE .. priority
  if call('LINDEX', lane, -1) == id then
    call('RPOP', lane)
    trim(lane, priority)
  elseif call('LINDEX', lane, 0) == id then
    call('LPOP', lane)
  else
    call('HINCRBY', GONE, priority .. id, 1)
    call('HINCRBY', GONE, '', 1)
    present[GONE] = true
  end
end
-- Take a job that does not run out of its place.
local function withdraw(id, value)
  local priority, more = priority_of(value), extras(value)
  local bucket = has(PARKED) and call('HGET', PARKED, id)
  if has(WAITS) and call('ZSCORE', WAITS, id) then
    leave_waiting(id)
    untie(id, more)
  elseif bucket then
    call('HDEL', PARKED, id)
    call('ZREM', PARK .. bucket, id)
  elseif not (has(DUE) and call('ZREM', DUE, priority .. id) == 1)
      and not (has(SUSPECTS) and call('ZREM', SUSPECTS, id) == 1) then
    leave_lane(id, priority)
  end
  offer(more[3])
end
-- The state of one that has ended, and its outcome if it is kept as one.
local function ended_state(id)
  local died = call('ZSCORE', DEAD, id)
  if died and tonumber(died) > OLD_LETTER then return 'dead' end
  local kept = call('GET', RESULT .. id)
  if not kept then return 'unknown' end
  return string.sub(kept, 1, 1) == 'd' and 'done' or 'cancelled', kept
end
