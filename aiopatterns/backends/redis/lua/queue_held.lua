-- What a worker holds. ARGV: 1 worker. Returns {id, value, tries, '1' if it is a suspect, ...}.

-- include queue_common

local found = {}
for _, id in ipairs(call('SMEMBERS', RUN .. ARGV[1])) do
  local value = call('HGET', JOBS, id)
  if value then
    local n = #found
    found[n + 1], found[n + 2], found[n + 3] = id, value, tries_of(id)
    found[n + 4] = has(MARKED) and call('HEXISTS', MARKED, id) or 0
  end
end
return found
