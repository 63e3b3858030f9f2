-- One turn of a consumer: settle, renew, claim.
-- KEYS: 1 stream, 2 meta, 3 groups, 4 own, 5 idle, 6 due, 7 body, 8 dead, 9 graves, 10 bell.
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

-- The next ids that were named, each with what came with it, if this consumer holds them.
local function held(count, width)
  local ids, mine, counts, with, n = {}, {}, {}, {}, 0
  for i = 1, count do ids[i] = ARGV[at + (i - 1) * width] end
  for i, owner in ipairs(get_many(KEYS[4], ids)) do
    local deliveries, who
    if owner then deliveries, who = string.match(owner, '^h(%d+):(.*)$') end
    if who == consumer then
      n = n + 1
      mine[n], counts[n], with[n] = ids[i], tonumber(deliveries), ARGV[at + i * width - 1]
    else
      insert(lost, ids[i])
    end
  end
  at = at + count * width
  return mine, counts, with
end

-- Scores that keep the order of the list; they differ by microseconds, and are never late.
-- As text, for the server takes much longer to write down a number.
local function scored(ids, times)
  local words, format = {}, string.format
  for i = 1, #ids do
    local time = (times and times[i] or now) - (#ids - i)
    words[2 * i - 1], words[2 * i] = format('%.0f', time), ids[i]
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

local function forget(ids)
  if #ids == 0 then return end
  many('HDEL', KEYS[4], ids)
  many('ZREM', KEYS[5], ids)
  if requeued then many('HDEL', KEYS[7], ids) end
  if ARGV[5] ~= '1' then return end
  many('XDEL', KEYS[1], ids)
  local hole = call('HGET', KEYS[2], 'hole') or '0-0'
  local most_ms, most_seq = parse(hole)
  for _, id in ipairs(ids) do
    local ms, seq = parse(id)
    if ms > most_ms or (ms == most_ms and seq > most_seq) then
      hole, most_ms, most_seq = id, ms, seq
    end
  end
  call('HSET', KEYS[2], 'hole', hole)
end

local function park(ids, counts, times)
  local words = {}
  for i, id in ipairs(ids) do
    words[2 * i - 1], words[2 * i] = id, string.format('p%.0f:%.0f', counts[i], now)
  end
  many('ZREM', KEYS[5], ids)
  many('HSET', KEYS[4], words)
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
  many('ZADD', KEYS[5], scored((held(tonumber(ARGV[12]), 1))))
end

-- Entries that are due, then abandoned ones in order of the log: ids and deliveries so far.
local function come_back()
  local ids = call('ZRANGEBYSCORE', KEYS[6], '-inf', now, 'LIMIT', 0, limit)
  many('ZREM', KEYS[6], ids)
  if #ids < limit then
    local left = call('ZRANGEBYSCORE', KEYS[5], '-inf', now - ARGV[4], 'LIMIT', 0, limit - #ids)
    table.sort(left, function(one, other)
      local ms, seq = parse(one)
      local other_ms, other_seq = parse(other)
      return ms < other_ms or (ms == other_ms and seq < other_seq)
    end)
    for _, id in ipairs(left) do insert(ids, id) end
  end
  return ids, get_many(KEYS[4], ids)
end

local function claim()
  local n, ids, claimed, owners, gone = 0, {}, {}, {}, {}
  local first = 'h1:' .. consumer
  local function take(id, body, count)
    n = n + 1
    local owner = count == 1 and first or 'h' .. count .. ':' .. consumer
    ids[n], owners[2 * n - 1], owners[2 * n] = id, id, owner
    claimed[3 * n - 2], claimed[3 * n - 1], claimed[3 * n] = id, body, count
  end
  local back, before = come_back()
  local bodies = requeued and get_many(KEYS[7], back) or {}
  for i, id in ipairs(back) do
    local body = bodies[i] or payload(id)
    if body then
      take(id, body, tonumber(string.match(before[i], '^.(%d+):')) + 1)
    else
      insert(gone, id) -- trimmed: nothing of it is left
    end
  end
  many('HDEL', KEYS[4], gone)
  many('ZREM', KEYS[5], gone)
  if n < limit then
    local fresh = call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', limit - n)
    for _, entry in ipairs(fresh) do take(entry[1], entry[2][2], 1) end
    if #fresh > 0 then call('HSET', KEYS[3], ARGV[1], fresh[#fresh][1]) end
  end
  many('HSET', KEYS[4], owners)
  many('ZADD', KEYS[5], scored(ids))
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
