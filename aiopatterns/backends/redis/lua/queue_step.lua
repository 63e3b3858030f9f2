-- One turn of a worker. ARGV: 1 channel, 2 worker, 3 number, 4 ms of lease, 5 how many more it can
-- take, 6 '1' if it leaves, 7 how many are settled; of each id, code, data; then id, fraction of
-- each progress. Codes: d done, x dead, c cancelled, l released, r and ms until the retry, f the same
-- with a lower priority; in capitals if the attempt does not count.
-- Returns {claimed id, value, ...}, {tries of these} or {}, {stale}, {cancels}, bits (1 reaped,
-- 2 quarantine, 4 more, 8 paused, 16 alone), ms until the next is due or -1, now, ms until the
-- lease of another worker may end or -1.

-- Ms until the first lease of another worker ends, of the two workers with the earliest, or -1.
local function next_end(first, worker, now)
  for i = 1, #first, 2 do
    if first[i] ~= worker then return math.max(0, first[i + 1] - now) end
  end
  return -1
end

-- Jobs are claimed in portions of so many, until there are so many bytes: more is left to the next
-- turn, so that big jobs do not pile up in an answer.
local CHUNK, BYTES = 32, 4194304

-- The highest lane that is not empty, and whether it is the only one.
local function first_lane(lane)
  local filled = redis.call('EXISTS', lane .. 0, lane .. 1, lane .. 2, lane .. 3, lane .. 4,
    lane .. 5, lane .. 6, lane .. 7, lane .. 8, lane .. 9)
  local has_lowest = redis.call('EXISTS', lane .. 0)
  if filled == has_lowest then return lane .. 0, true end
  for priority = 9, 1, -1 do
    if redis.call('EXISTS', lane .. priority) == 1 then return lane .. priority, filled == 1 end
  end
end

-- Most turns are of plain jobs while nothing else is the matter: they settle as done what runs, and
-- claim from one lane. That goes without the machinery below, which does the same and all the rest;
-- false means that nothing was done.
local function plain_turn()
  local call, q, worker, count = redis.call, KEYS[1], ARGV[2], tonumber(ARGV[7])
  local mine, jobs, result = q .. ':run:' .. worker, q .. ':jobs', q .. ':res:'
  if ARGV[6] == '1' or #ARGV ~= 7 + 3 * count
      or call('EXISTS', q .. ':ctl', q .. ':watch', q .. ':stop', q .. ':waits', q .. ':ended',
        q .. ':marked', q .. ':prog', q .. ':gone') > 0 then
    return false
  end
  local clock = call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local last = call('HGET', q .. ':turns', worker)
  local workers = call('ZRANGE', q .. ':workers', 0, 1, 'WITHSCORES')
  if not last or tonumber(last) >= tonumber(ARGV[3]) or tonumber(workers[2]) <= now then
    return false
  end
  local next_due = -1
  local due = call('ZRANGE', q .. ':due', 0, 0, 'WITHSCORES')
  if due[1] then
    next_due = due[2] - now
    if next_due <= 0 then return false end
  end
  local tried = call('EXISTS', q .. ':tries') == 1

  local settled, results = {}, {}
  if count > 0 then
    local keeps = {}
    for i = 1, count do settled[i] = ARGV[5 + 3 * i] end
    for _, held in ipairs(call('SMISMEMBER', mine, unpack(settled))) do
      if held == 0 then return false end
    end
    for i, value in ipairs(call('HMGET', jobs, unpack(settled))) do
      if ARGV[6 + 3 * i] ~= 'd' or not value or string.byte(value, 1) > 1 then return false end
      local raw = string.sub(value, 7, 14)
      local keep = keeps[raw]
      if keep == nil then
        keep = struct.unpack('>I8', raw)
        keep = keep > 0 and string.format('%.0f', keep)
        keeps[raw] = keep
      end
      results[i] = keep
    end
    if tried then
      for _, tries in ipairs(call('HMGET', q .. ':tries', unpack(settled))) do
        if tries then return false end
      end
    end
  end
  local ids, claimed, free = {}, {}, tonumber(ARGV[5])
  local lane, only = first_lane(q .. ':lane:')
  if free > 0 then
    ids = call('LRANGE', lane, 0, free - 1)
    if #ids < free and not only then return false end
  end
  local bytes, wanted = 0, #ids
  for first = 1, wanted, CHUNK do
    local last = math.min(first + CHUNK - 1, wanted)
    if bytes > BYTES then
      for i = first, last do ids[i] = nil end
    else
      for i, value in ipairs(call('HMGET', jobs, unpack(ids, first, last))) do
        if not value or string.byte(value, 1) > 1 then return false end
        local n = #claimed
        claimed[n + 1], claimed[n + 2] = ids[first + i - 1], value
        bytes = bytes + #value
      end
    end
  end

  call('DEL', q .. ':wake:' .. worker)
  if count > 0 then
    call('SREM', mine, unpack(settled))
    call('HDEL', jobs, unpack(settled))
    for i = 1, count do
      if results[i] then
        call('SET', result .. settled[i], 'd1:' .. ARGV[7 + 3 * i], 'PX', results[i])
      end
    end
  end
  call('HSET', q .. ':turns', worker, ARGV[3])
  call('ZADD', q .. ':workers', now + ARGV[4], worker)
  local tries = {}
  if #ids > 0 then
    call('LTRIM', lane, #ids, -1)
    call('SADD', mine, unpack(ids))
    if tried then tries = call('HMGET', q .. ':tries', unpack(ids)) end
  end
  local more = only and call('EXISTS', lane) or 1
  if more == 1 or (next_due >= 0 and #ids == free) then
    call('ZADD', q .. ':wake', 0, 1)
  else
    call('DEL', q .. ':wake')
  end
  return { claimed, tries, {}, {}, 4 * more, next_due, now, next_end(workers, worker, now) }
end
local answer = plain_turn()
if answer then return answer end

-- include queue_common

local PROMOTED, REAPED, EXAMINED, GHOST = 200, 2, 500, '\0gone'
local worker, number, free = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
local mine = RUN .. worker
-- A full server takes what grows once something was written that does not.
call('DEL', WAKE .. ':' .. worker)

-- ---------------------------------------------------------------------------------- settle
local function give_back(id, value, backs)
  if has(STOP) and call('SISMEMBER', STOP, id) == 1 then
    finish(id, value, 'cancelled', '', tries_of(id))
  else
    backs[#backs + 1] = { id, priority_of(value) }
    tell('queued', id)
  end
end
local function count_try(id)
  present[TRIES] = true
  return call('HINCRBY', TRIES, id, 1)
end
local function demoted(id, value)
  local lower = math.max(0, priority_of(value) - 1)
  value = string.sub(value, 1, 1) .. string.char(lower) .. string.sub(value, 3)
  call('HSET', JOBS, id, value)
  return value
end
local function retry(id, value, delay, counted, err)
  local tries = counted and count_try(id) or tries_of(id)
  if has(STOP) and call('SISMEMBER', STOP, id) == 1 then
    finish(id, value, 'cancelled', '', tries)
    return
  end
  if has(MARKED) then call('HDEL', MARKED, id) end
  schedule(id, priority_of(value), now + delay)
  tell('retrying', id, err)
end
local STATES = { d = 'done', x = 'dead', c = 'cancelled' }
local function settle_one(id, value, code, data, backs)
  local letter = string.sub(code, 1, 1)
  local how = string.lower(letter)
  free_places(extras(value)[3])
  if has(PROGRESS) then call('HDEL', PROGRESS, id) end
  if how == 'l' then
    give_back(id, value, backs)
  elseif how == 'r' or how == 'f' then
    if how == 'f' then value = demoted(id, value) end
    retry(id, value, tonumber(string.sub(code, 2)), how == letter, data)
  else
    finish(id, value, STATES[how], data, tries_of(id) + (how == letter and 1 or 0))
  end
end
local stale, first_progress = {}, 8 + 3 * ARGV[7]
local function settle()
  local ids = {}
  for i = 8, first_progress - 1, 3 do ids[#ids + 1] = ARGV[i] end
  local held = call('SMISMEMBER', mine, unpack(ids))
  local values = call('HMGET', JOBS, unpack(ids))
  call('SREM', mine, unpack(ids))
  local backs = {}
  for i, id in ipairs(ids) do
    if held[i] == 0 then
      stale[#stale + 1] = id
    elseif values[i] then
      settle_one(id, values[i], ARGV[6 + 3 * i], ARGV[7 + 3 * i], backs)
    end
  end
  flush()
  push(backs)
end

local known = call('ZSCORE', WORKERS, worker)
local reaped = not known and number > 1
if number > tonumber(known and call('HGET', TURNS, worker) or 0) then
  if ARGV[7] ~= '0' then settle() end
  call('HSET', TURNS, worker, number)
else
  free = 0 -- doubled, or late: the worker would never hear of what this gives out
end
for i = first_progress, #ARGV, 2 do
  if call('SISMEMBER', mine, ARGV[i]) == 1 then
    call('HSET', PROGRESS, ARGV[i], ARGV[i + 1])
    tell('progress', ARGV[i], ARGV[i + 1])
  end
end
call('ZADD', WORKERS, now + ARGV[4], worker)

-- ------------------------------------------------------------------------ promote, take back
local paused, appointed = unpack(call('HMGET', CTL, 'paused', 'appointed'))
local function dismiss(name)
  call('ZREM', WORKERS, name)
  call('HDEL', TURNS, name)
  if appointed == name then
    call('HDEL', CTL, 'appointed')
    appointed = false
  end
end
local function promote()
  local ids = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, PROMOTED)
  if #ids == 0 then return end
  call('ZREMRANGEBYRANK', DUE, 0, #ids - 1)
  for _, id in ipairs(ids) do enqueue_at(string.sub(id, 2), string.sub(id, 1, 1)) end
end
local function take_back_one(id, value, backs)
  free_places(extras(value)[3])
  if has(PROGRESS) then call('HDEL', PROGRESS, id) end
  local tries = count_try(id)
  if has(STOP) and call('SISMEMBER', STOP, id) == 1 then
    finish(id, value, 'cancelled', '', tries)
  elseif tries >= struct.unpack('>I4', value, 3) then
    finish(id, value, 'dead', '', tries)
  else
    call('HSET', MARKED, id, now)
    present[MARKED] = true
    backs[#backs + 1] = { id, priority_of(value) }
    tell('queued', id)
  end
end
-- Up to a batch of what a worker holds, in order of the ids, with the values.
local function empty_hands(name)
  local ids = call('SPOP', RUN .. name, BATCH)
  if #ids == 0 then return ids, {} end
  table.sort(ids)
  return ids, call('HMGET', JOBS, unpack(ids))
end
-- What is too much for one step goes on under another name, so that the worker, if it comes
-- back, holds nothing.
local function take_back(name)
  local ids, values = empty_hands(name)
  local backs = {}
  for i, id in ipairs(ids) do
    if values[i] then take_back_one(id, values[i], backs) end
  end
  if call('EXISTS', RUN .. name) == 0 then
    dismiss(name)
  elseif string.sub(name, -#GHOST) ~= GHOST then
    call('SUNIONSTORE', RUN .. name .. GHOST, RUN .. name .. GHOST, RUN .. name)
    call('DEL', RUN .. name)
    call('ZADD', WORKERS, 0, name .. GHOST)
    dismiss(name)
  end
  flush()
  push(backs)
end

local more = false
if has(DUE) then promote() end
local late = call('ZRANGEBYSCORE', WORKERS, '-inf', now, 'LIMIT', 0, REAPED)
for _, name in ipairs(late) do take_back(name) end
if #late > 0 then more = call('ZCOUNT', WORKERS, '-inf', now) > 0 end
if ARGV[6] == '1' then
  local ids, values = empty_hands(worker)
  local backs = {}
  for i, id in ipairs(ids) do
    free_places(extras(values[i])[3])
    if has(PROGRESS) then call('HDEL', PROGRESS, id) end
    give_back(id, values[i], backs)
  end
  flush()
  push(backs)
  if call('EXISTS', mine) == 0 then dismiss(worker) else more = true end
end
more = work_off() or more

-- ----------------------------------------------------------------------------------- limits
local function park(id, priority, bucket)
  local rank = call('HGET', RANKS, id)
  if not rank then
    rank = call('HINCRBY', RANKS, '', 1)
    call('HSET', RANKS, id, rank)
    present[RANKS] = true
  end
  call('ZADD', PARK .. bucket, (9 - priority) * STEP + rank, id)
  call('HSET', PARKED, id, bucket)
end
-- Of a rate: arrival times (ms) that follow what has started, what has a turn, and what had to move.
local function level_of(bucket)
  local spent, promised, moved =
    string.match(call('GET', RATE .. bucket[1]) or '', '^(%S+) (%S+) (%S+)$')
  return { tonumber(spent or 0), tonumber(promised or 0), tonumber(moved or 0) }
end
local function keep_level(bucket, spent, promised, moved)
  local life = math.max(1, math.ceil(math.max(spent, promised, moved) - now))
  local level = string.format('%.17g %.17g %.17g', spent, promised, moved)
  call('SET', RATE .. bucket[1], level, 'PX', life)
end
-- Spend from the rates; if it is too early, promise a turn instead, or move behind what moved.
local function on_time(id, priority, rated)
  local promised, early, levels = call('SISMEMBER', PROMISED, id) == 1, false, {}
  for i, bucket in ipairs(rated) do
    local level = level_of(bucket)
    levels[i] = level
    local reached = promised and level[1] or math.max(unpack(level))
    early = early or reached - bucket[4] > now
  end
  local due = now
  for i, bucket in ipairs(rated) do
    local spent, turn, moved = unpack(levels[i])
    local interval = bucket[3]
    if early then
      local start = math.max(spent, promised and moved or math.max(turn, moved), now)
      due = math.max(due, math.ceil(start - bucket[4]))
      if promised then moved = start + interval else turn = start + interval end
      keep_level(bucket, spent, turn, moved)
    else
      spent = math.max(spent, now) + interval
      if not promised then turn = math.max(turn, moved, now) + interval end
      keep_level(bucket, spent, math.max(spent, turn), moved)
    end
  end
  if not early then return true end
  call('SADD', PROMISED, id)
  present[PROMISED] = true
  schedule(id, priority, math.max(due, now + 1))
  return false
end
-- Let one start, taking its places; else park or schedule it.
local function admit(id, priority, limits)
  local rated = {}
  for _, bucket in ipairs(limits) do
    if not has_room(bucket) then
      park(id, priority, bucket[1])
      offer(limits)
      return false
    end
    if bucket[3] > 0 then rated[#rated + 1] = bucket end
  end
  if #rated > 0 and not on_time(id, priority, rated) then
    offer(limits)
    return false
  end
  forget(id)
  for _, bucket in ipairs(limits) do
    if bucket[2] > 0 then call('HINCRBY', BUSY, bucket[1], 1) end
  end
  offer(limits)
  return true
end

-- ------------------------------------------------------------------------------------ claim
local claimed, started, bytes = {}, {}, 0
local function start(id, value)
  if is(value, UNIQUE) then
    local unique = extras(value)[2]
    local key, mode = unique[1], unique[2]
    if (mode == 'b' or mode == 'k') and call('HGET', UNIQ, key) == mode .. id then
      call('HDEL', UNIQ, key)
      if mode == 'k' then call('HSET', LAST, key, id) end
    end
  end
  started[#started + 1] = id
  claimed[#claimed + 1], claimed[#claimed + 2] = id, value
  bytes = bytes + #value
  tell('started', id)
end
local examined = EXAMINED
-- Up to so many from the head of a lane, without those that have left it.
local function take(priority, most)
  local lane = LANE .. priority
  local ids = call('LPOP', lane, most) or {}
  if not has(GONE) then return ids end
  local real = {}
  while #ids > 0 do
    for _, id in ipairs(ids) do
      if has(GONE) and is_gone(id, priority) then examined = examined - 1
      else real[#real + 1] = id end
    end
    ids = #real < most and examined > 0 and call('LPOP', lane, most - #real) or {}
  end
  return real
end
local function claim_lane(priority)
  while #started < free and examined > 0 and bytes <= BYTES do
    local ids = take(priority, math.min(free - #started, CHUNK))
    if #ids == 0 then return end
    local values = call('HMGET', JOBS, unpack(ids))
    for i, value in ipairs(values) do
      if value and is(value, LIMITS) and not admit(ids[i], priority, extras(value)[3]) then
        examined = examined - 1
      elseif value then
        start(ids[i], value)
      end
    end
    flush()
  end
end
local function claim()
  if call('EXISTS', LANE .. 1, LANE .. 2, LANE .. 3, LANE .. 4, LANE .. 5,
    LANE .. 6, LANE .. 7, LANE .. 8, LANE .. 9) > 0 then
    for priority = 9, 1, -1 do claim_lane(priority) end
  end
  claim_lane(0)
end
local alone, quarantine, barred = false, false, false
-- Deal with suspects; true if that is all for this worker now.
local function give_alone()
  if call('EXISTS', mine) == 1 then
    if not appointed or not call('ZSCORE', WORKERS, appointed) then
      call('HSET', CTL, 'appointed', worker)
      appointed = worker
    end
    quarantine = appointed == worker
    return quarantine
  end
  for _ = 1, free > 0 and math.min(call('ZCARD', SUSPECTS), EXAMINED) or 0 do
    local id = call('ZPOPMIN', SUSPECTS)[1]
    local value = call('HGET', JOBS, id)
    if not is(value, LIMITS) or admit(id, priority_of(value), extras(value)[3]) then
      start(id, value)
      alone, news = true, true
      if appointed == worker then call('HDEL', CTL, 'appointed') end
      flush()
      return true
    end
  end
  flush()
  return false
end
local function holds_suspect()
  if not has(MARKED) or call('SCARD', mine) ~= 1 then return false end
  return call('HEXISTS', MARKED, call('SRANDMEMBER', mine)) == 1
end
present[SUSPECTS] = nil
if not has(SUSPECTS) and appointed then
  call('HDEL', CTL, 'appointed')
  appointed = false
end
if not paused and ARGV[6] ~= '1' then
  barred = holds_suspect() or (has(SUSPECTS) and give_alone())
  if not barred and free > 0 then claim() end
end
local tries = {}
if #started > 0 then
  call('SADD', mine, unpack(started))
  if has(TRIES) then tries = call('HMGET', TRIES, unpack(started)) end
end

-- ------------------------------------------------------------------------------------- reply
local lanes, due = ring(paused, ARGV[6] ~= '1' and (barred or #started == free))
if lanes and not paused and not barred and ARGV[6] ~= '1' then more = true end
if due and due <= now then more = true end
publish(ARGV[1])
local bits = (reaped and 1 or 0) + (quarantine and 2 or 0) + (more and 4 or 0) + (paused and 8 or 0)
  + (alone and 16 or 0)
local cancels = call('EXISTS', STOP) == 1 and call('SINTER', STOP, mine) or {}
local first_end = next_end(call('ZRANGE', WORKERS, 0, 1, 'WITHSCORES'), worker, now)
return { claimed, tries, stale, cancels, bits, due and math.max(0, due - now) or -1, now, first_end }
