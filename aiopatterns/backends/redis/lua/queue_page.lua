-- Some of the jobs in one state. ARGV: 1 state, 2 how many to skip, 3 how many at most.
-- Returns {id, value or letter, tries, ms of when, ...}, and 1 if there are more.

-- include queue_common

local skip, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local ids, whens, scale = {}, {}, 1
-- How many of a section of this length are to be passed over, and how many to be taken.
local function window(length)
  local first = math.min(skip, length)
  local count = math.min(length - first, limit + 1 - #ids)
  skip = skip - first
  return first, count
end
-- Whether the entry at this place of a lane is one to be skipped: the first of an id are.
local function is_stale(lane, id, place, stale)
  for _, each in ipairs(call('LPOS', lane, id, 'COUNT', stale)) do
    if each == place then return true end
  end
  return false
end
local function take_lane(priority)
  local lane = LANE .. priority
  local first, count = window(call('LLEN', lane))
  if count <= 0 then return end
  for i, id in ipairs(call('LRANGE', lane, first, first + count - 1)) do
    local stale = has(GONE) and tonumber(call('HGET', GONE, priority .. id) or 0) or 0
    ids[#ids + 1] = not (stale > 0 and is_stale(lane, id, first + i - 1, stale)) and id
  end
end
local function take_scored(key, command, strip)
  local first, count = window(call('ZCARD', key))
  if count <= 0 then return end
  local found = call(command, key, first, first + count - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    ids[#ids + 1] = strip and string.sub(found[i], 2) or found[i]
    whens[#ids] = found[i + 1]
  end
end
local function take_list(list)
  local first, count = window(#list)
  for i = first + 1, first + count do ids[#ids + 1] = list[i] end
end
-- What limits hold back: by priority, bucket, rank.
local function parked()
  local all, flat = {}, call('HGETALL', PARKED)
  for i = 1, #flat, 2 do
    local score = tonumber(call('ZSCORE', PARK .. flat[i + 1], flat[i]))
    all[#all + 1] = { flat[i], math.floor(score / STEP), flat[i + 1], score }
  end
  table.sort(all, function(one, other)
    if one[2] ~= other[2] then return one[2] < other[2] end
    if one[3] ~= other[3] then return one[3] < other[3] end
    return one[4] < other[4]
  end)
  for i, each in ipairs(all) do all[i] = each[1] end
  return all
end
local states = {}
function states.queued()
  take_scored(SUSPECTS, 'ZRANGE')
  whens = {}
  for priority = 9, 0, -1 do take_lane(priority) end
  if #ids <= limit and has(PARKED) then take_list(parked()) end
end
function states.scheduled() take_scored(DUE, 'ZRANGE', true) end
function states.waiting()
  take_scored(WAITS, 'ZRANGE')
  whens = {}
end
function states.dead()
  drop_letters(call('ZRANGEBYSCORE', DEAD, '-inf', OLD_LETTER, 'LIMIT', 0, BATCH))
  take_scored(DEAD, 'ZREVRANGE')
  scale = 1000
end
function states.running()
  local names = call('ZRANGE', WORKERS, 0, -1)
  table.sort(names)
  for _, name in ipairs(names) do
    local held = call('SCARD', RUN .. name)
    if skip >= held then
      skip = skip - held
    elseif #ids <= limit then
      local mine = call('SMEMBERS', RUN .. name)
      table.sort(mine)
      take_list(mine)
    end
  end
end
states[ARGV[1]]()

local found = {}
local more = #ids > limit
for i = 1, math.min(#ids, limit) do
  local id = ids[i]
  local value = id and call('HGET', ARGV[1] == 'dead' and LETTERS or JOBS, id)
  if value and (ARGV[1] ~= 'dead' or tonumber(whens[i]) > OLD_LETTER) then
    local n = #found
    found[n + 1], found[n + 2], found[n + 3] = id, value, tries_of(id)
    found[n + 4] = math.floor(tonumber(whens[i] or 0) / scale)
  end
end
return { found, more and 1 or 0 }
