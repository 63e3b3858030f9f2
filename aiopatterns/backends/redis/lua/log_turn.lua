-- One turn of a consumer: settle, renew, claim.
-- KEYS: 1 stream, 2 meta, 3 groups, 4 own, 5 parked, 6 due, 7 body, 8 dead, 9 graves, 10 bell.
-- ARGV: 1 group, 2 consumer, 3 limit, 4 idle in us, 5 '1' to delete what is settled, 6 dead
-- letters at most, 7 ms for which a bell is kept, 8-12 how many acks, releases, retries, buried,
-- renews; then these: ids; ids; id, us; id, reason; ids.
-- Returns {lost ids, {id, payload, deliveries, ...}}, or false if there is no such group.

-- include whole

local call, insert = redis.call, table.insert
local last = call('HGET', KEYS[3], ARGV[1])
if not last then return false end
-- Removes nothing, but after a write that grows nothing a full server takes the others as well:
-- only by claiming and settling does it ever become less full.
call('HDEL', KEYS[4], '')
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local consumer, limit = ARGV[2], tonumber(ARGV[3])
local lost, at = {}, 13
-- With zeros in front, what is noted of an entry is longer than 64 bytes, and the server keeps a hash
-- table of these, in which it finds one at once, and not a list in which it searches.
local stamp = string.format('%060.0f', now)
local requeued = call('EXISTS', KEYS[7]) == 1

-- A command over many words, in pieces that Lua's stack can hold.
local function many(command, key, words)
  for first = 1, #words, 1000 do
    call(command, key, unpack(words, first, math.min(first + 999, #words)))
  end
end

local function get_many(key, ids)
  if #ids <= 1000 then return #ids > 0 and call('HMGET', key, unpack(ids)) or {} end
  local found = {}
  for first = 1, #ids, 1000 do
    local part = call('HMGET', key, unpack(ids, first, math.min(first + 999, #ids)))
    for i, each in ipairs(part) do found[first + i - 1] = each end
  end
  return found
end

-- What is noted of one that holds an entry. Most of a turn are the same text, taken apart once.
local seen, deliveries, since, who
local function owned(text)
  if text ~= seen then
    seen = text
    deliveries, since, who = string.match(text or '', '^(%d+):(%d+):(.*)$')
    deliveries, since = tonumber(deliveries), tonumber(since)
  end
  return deliveries, since, who
end

-- The next ids that were named, each with what came with it, if this consumer holds them.
local function held(count, width)
  local ids, mine, counts, with, n = {}, {}, {}, {}, 0
  for i = 1, count do ids[i] = ARGV[at + (i - 1) * width] end
  for i, owner in ipairs(get_many(KEYS[4], ids)) do
    local times, _, holder = owned(owner)
    if holder == consumer then
      n = n + 1
      mine[n], counts[n], with[n] = ids[i], times, ARGV[at + i * width - 1]
    else
      insert(lost, ids[i])
    end
  end
  at = at + count * width
  return mine, counts, with
end

-- Note that this consumer holds these from now on.
local function hold(ids, counts)
  local words, format, first = {}, string.format, '1:' .. stamp .. ':' .. consumer
  for i, id in ipairs(ids) do
    words[2 * i - 1] = id
    words[2 * i] = counts[i] == 1 and first or format('%.0f:%s:%s', counts[i], stamp, consumer)
  end
  many('HSET', KEYS[4], words)
end

-- Scores that keep the order of the list; they differ by microseconds, and are never late.
-- As text, for the server takes much longer to write down a number.
local function scored(ids, times)
  local words, format = {}, string.format
  for i = 1, #ids do
    words[2 * i - 1], words[2 * i] = format('%.0f', times[i] - (#ids - i)), ids[i]
  end
  return words
end

local function payload(id)
  local entry = call('XRANGE', KEYS[1], id, id)[1]
  return entry and entry[2][2]
end

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(id, other)
  local ms, seq = parse(id)
  local other_ms, other_seq = parse(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

local function forget(ids)
  if #ids == 0 then return end
  many('HDEL', KEYS[4], ids)
  if requeued then many('HDEL', KEYS[7], ids) end
  if ARGV[5] ~= '1' then return end
  many('XDEL', KEYS[1], ids)
  local hole = call('HGET', KEYS[2], 'hole') or '0-0'
  for _, id in ipairs(ids) do
    if before(hole, id) then hole = id end
  end
  call('HSET', KEYS[2], 'hole', hole)
end

local function park(ids, counts, times)
  local words = {}
  for i, id in ipairs(ids) do
    words[2 * i - 1], words[2 * i] = id, string.format('%.0f:%s', counts[i], stamp)
  end
  many('HDEL', KEYS[4], ids)
  many('HSET', KEYS[5], words)
  many('ZADD', KEYS[6], scored(ids, times))
end

local function bury(ids, counts, reasons)
  if #ids == 0 then return end
  local records, places = {}, {}
  local place = call('HINCRBY', KEYS[2], 'graves', #ids) - #ids
  local bodies = get_many(KEYS[7], ids)
  for i, id in ipairs(ids) do
    local body = bodies[i] or payload(id) or ''
    records[2 * i - 1] = id
    records[2 * i] = counts[i] .. ':' .. #reasons[i] .. ':' .. reasons[i] .. body
    places[2 * i - 1], places[2 * i] = string.format('%.0f', place + i), id
  end
  many('HSET', KEYS[8], records)
  many('ZADD', KEYS[9], places)
  forget(ids)
  local surplus = call('ZCARD', KEYS[9]) - ARGV[6]
  if surplus > 0 then
    local oldest = call('ZRANGE', KEYS[9], 0, surplus - 1)
    many('HDEL', KEYS[8], oldest)
    many('ZREM', KEYS[9], oldest)
  end
end

local function settle()
  forget((held(tonumber(ARGV[8]), 1)))
  local ids, counts = held(tonumber(ARGV[9]), 1)
  local times, delays = {}, nil
  for i, count in ipairs(counts) do
    counts[i], times[i] = count - 1, now - ARGV[10] -- before the retries of this turn
  end
  park(ids, counts, times)
  ids, counts, delays = held(tonumber(ARGV[10]), 2)
  for i, delay in ipairs(delays) do delays[i] = now + delay end
  park(ids, counts, delays)
  bury(held(tonumber(ARGV[11]), 2))
  ids, counts = held(tonumber(ARGV[12]), 1)
  hold(ids, counts)
end

-- Add abandoned entries up to the limit: those held longest, in order of the log. All that are held
-- are looked at, but only when the oldest may be so old: once in that time, or so.
local function add_abandoned(ids, counts)
  local field, most = 'oldest:' .. ARGV[1], now - ARGV[4]
  if tonumber(call('HGET', KEYS[2], field) or 0) > most then return end
  local left, times, of, oldest, all = {}, {}, {}, now, call('HGETALL', KEYS[4])
  for i = 1, #all, 2 do
    local id, count, time = all[i], owned(all[i + 1])
    if time <= most then
      insert(left, id)
      times[id], of[id] = time, count
    elseif time < oldest then
      oldest = time
    end
  end
  table.sort(left, function(one, other)
    if times[one] ~= times[other] then return times[one] < times[other] end
    return before(one, other)
  end)
  local room = limit - #ids
  if #left > room then oldest = times[left[room + 1]] end
  for i = #left, room + 1, -1 do left[i] = nil end
  table.sort(left, before)
  for _, id in ipairs(left) do
    insert(ids, id)
    insert(counts, of[id])
  end
  call('HSET', KEYS[2], field, string.format('%.0f', oldest))
end

-- Entries that are due, then abandoned ones: ids and deliveries so far.
local function come_back()
  local ids, counts = call('ZRANGEBYSCORE', KEYS[6], '-inf', now, 'LIMIT', 0, limit), {}
  if #ids > 0 then
    for i, each in ipairs(get_many(KEYS[5], ids)) do
      counts[i] = tonumber(string.match(each or '0', '^%d+'))
    end
    many('ZREM', KEYS[6], ids)
    many('HDEL', KEYS[5], ids)
  end
  if #ids < limit then add_abandoned(ids, counts) end
  return ids, counts
end

local function claim()
  local n, ids, counts, claimed, gone = 0, {}, {}, {}, {}
  local function take(id, body, count)
    n = n + 1
    ids[n], counts[n] = id, count
    claimed[3 * n - 2], claimed[3 * n - 1], claimed[3 * n] = id, body, count
  end
  local back, times = come_back()
  local bodies = requeued and get_many(KEYS[7], back) or {}
  for i, id in ipairs(back) do
    local body = bodies[i] or payload(id)
    if body then
      take(id, body, times[i] + 1)
    else
      insert(gone, id) -- trimmed: nothing of it is left
    end
  end
  many('HDEL', KEYS[4], gone)
  if n < limit then
    local fresh = call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', limit - n)
    for _, entry in ipairs(fresh) do take(entry[1], entry[2][2], 1) end
    if #fresh > 0 then call('HSET', KEYS[3], ARGV[1], fresh[#fresh][1]) end
  end
  hold(ids, counts)
  return claimed
end

local function next_due()
  return tonumber(call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2] or 'inf')
end

local parks = ARGV[9] ~= '0' or ARGV[10] ~= '0'
local due = parks and next_due()
settle()
local claimed = limit > 0 and claim() or {}
if parks and next_due() < due then
  call('XADD', KEYS[10], 'MAXLEN', 1, '*', 'due', 1)
  call('PEXPIRE', KEYS[10], ARGV[7])
end
return {lost, claimed}
