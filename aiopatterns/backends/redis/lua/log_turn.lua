-- One turn of a consumer: settle, renew, claim.
-- KEYS: 1 stream, 2 meta, 3 groups, 4 own, 5 idle, 6 due, 7 body, 8 dead, 9 graves, 10 bell.
-- ARGV: 1 group, 2 consumer, 3 limit, 4 idle in us, 5 '1' to delete what is settled, 6 dead
-- letters at most, 7 ms for which a bell is kept, 8-12 how many acks, releases, retries, buried,
-- renews; then these: ids; ids; id, us; id, reason; ids.
-- Returns {lost ids, {id, payload, deliveries, ...}}, or false if there is no such group.
local last = redis.call('HGET', KEYS[3], ARGV[1])
if not last then return false end
-- Removes nothing, but after a write that grows nothing a full server takes the others as well:
-- only by claiming and settling does it ever become less full.
redis.call('HDEL', KEYS[4], '')
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local group, consumer, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lost, at = {}, 13

-- A command over many words, in pieces that Lua's stack can hold.
local function many(command, key, words)
  for first = 1, #words, 1000 do
    redis.call(command, key, unpack(words, first, math.min(first + 999, #words)))
  end
end

local function get_many(key, ids)
  local found = {}
  for first = 1, #ids, 1000 do
    local part = redis.call('HMGET', key, unpack(ids, first, math.min(first + 999, #ids)))
    for _, each in ipairs(part) do found[#found + 1] = each end
  end
  return found
end

-- The next ids that were named, each with what came with it, if this consumer holds them.
local function held(count, width)
  local ids, extras, mine, with, counts = {}, {}, {}, {}, {}
  for i = 0, count - 1 do
    ids[#ids + 1] = ARGV[at + i * width]
    extras[#extras + 1] = ARGV[at + i * width + width - 1]
  end
  at = at + count * width
  for i, owner in ipairs(get_many(KEYS[4], ids)) do
    local deliveries, who = string.match(owner or '', '^h(%d+):(.*)$')
    if who == consumer then
      mine[#mine + 1], with[#with + 1] = ids[i], extras[i]
      counts[#counts + 1] = tonumber(deliveries)
    else
      lost[#lost + 1] = ids[i]
    end
  end
  return mine, counts, with
end

-- Scores that keep the order of the list; they differ by microseconds, and are never late.
local function scored(ids, times)
  local words = {}
  for i, id in ipairs(ids) do
    words[#words + 1] = string.format('%.0f', (times and times[i] or now) - (#ids - i))
    words[#words + 1] = id
  end
  return words
end

local function payload(id)
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  return entry and entry[2][2]
end

local function after(id, other)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(seq) > tonumber(other_seq)
end

local function forget(ids)
  many('HDEL', KEYS[4], ids)
  many('ZREM', KEYS[5], ids)
  many('HDEL', KEYS[7], ids)
  if ARGV[5] ~= '1' or #ids == 0 then return end
  many('XDEL', KEYS[1], ids)
  local hole = redis.call('HGET', KEYS[2], 'hole') or '0-0'
  for _, id in ipairs(ids) do
    if after(id, hole) then hole = id end
  end
  redis.call('HSET', KEYS[2], 'hole', hole)
end

local function park(ids, counts, times)
  many('ZREM', KEYS[5], ids)
  local words = {}
  for i, id in ipairs(ids) do
    words[#words + 1] = id
    words[#words + 1] = string.format('p%.0f:%.0f', counts[i], now)
  end
  many('HSET', KEYS[4], words)
  many('ZADD', KEYS[6], scored(ids, times))
end

local function bury(ids, counts, reasons)
  if #ids == 0 then return end
  local records, places = {}, {}
  local place = redis.call('HINCRBY', KEYS[2], 'graves', #ids) - #ids
  local bodies = get_many(KEYS[7], ids)
  for i, id in ipairs(ids) do
    local body = bodies[i] or payload(id) or ''
    records[#records + 1] = id
    records[#records + 1] = counts[i] .. ':' .. #reasons[i] .. ':' .. reasons[i] .. body
    places[#places + 1] = string.format('%.0f', place + i)
    places[#places + 1] = id
  end
  many('HSET', KEYS[8], records)
  many('ZADD', KEYS[9], places)
  forget(ids)
  local surplus = redis.call('ZCARD', KEYS[9]) - ARGV[6]
  if surplus > 0 then
    local oldest = redis.call('ZRANGE', KEYS[9], 0, surplus - 1)
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

-- Entries that are due, then abandoned ones: ids and deliveries so far.
local function come_back()
  local ids = redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now, 'LIMIT', 0, limit)
  many('ZREM', KEYS[6], ids)
  if #ids < limit then
    local till = string.format('%.0f', now - ARGV[4])
    local left = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', till, 'LIMIT', 0, limit - #ids)
    table.sort(left, function(one, other) return after(other, one) end)
    for _, id in ipairs(left) do ids[#ids + 1] = id end
  end
  return ids, get_many(KEYS[4], ids)
end

local function claim()
  local ids, counts, claimed, gone = {}, {}, {}, {}
  local function take(id, body, count)
    ids[#ids + 1], counts[#counts + 1] = id, count
    local n = #claimed
    claimed[n + 1], claimed[n + 2], claimed[n + 3] = id, body, count
  end
  local back, owners = come_back()
  local bodies = get_many(KEYS[7], back)
  for i, id in ipairs(back) do
    local body = bodies[i] or payload(id)
    if body then
      take(id, body, tonumber(string.match(owners[i], '^.(%d+):')) + 1)
    else
      gone[#gone + 1] = id -- trimmed: nothing of it is left
    end
  end
  many('HDEL', KEYS[4], gone)
  many('ZREM', KEYS[5], gone)
  if #ids < limit then
    local fresh = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', limit - #ids)
    for _, entry in ipairs(fresh) do take(entry[1], entry[2][2], 1) end
    if #fresh > 0 then redis.call('HSET', KEYS[3], group, fresh[#fresh][1]) end
  end
  local words = {}
  for i, id in ipairs(ids) do
    words[#words + 1] = id
    words[#words + 1] = 'h' .. counts[i] .. ':' .. consumer
  end
  many('HSET', KEYS[4], words)
  many('ZADD', KEYS[5], scored(ids))
  return claimed
end

local function next_due()
  return tonumber(redis.call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2] or 'inf')
end

local due = next_due()
settle()
local claimed = limit > 0 and claim() or {}
if next_due() < due then
  redis.call('XADD', KEYS[10], 'MAXLEN', 1, '*', 'due', 1)
  redis.call('PEXPIRE', KEYS[10], ARGV[7])
end
return {lost, claimed}
