-- ARGV: now in ms or '', token, outcome (done, refused, failed). Returns 1 if the dispatch was held, 0 if it had ended.
local now, token, outcome = clock(ARGV[1]), ARGV[2], ARGV[3]
expire(now)
local instance, record, work = take_back(token, now)
if not instance then
  return 0
end
if outcome == 'done' then
  record.done = record.done + work
  record.failures, record.ejected = 0, 0
elseif outcome == 'failed' and now >= record.ejected then -- others that fail with it are the same failure
  record.failures = record.failures + 1
  local longer = FIRST_EJECTION_MS * 2 ^ math.min(record.failures - 1, 5)
  record.ejected = now + math.min(LONGEST_EJECTION_MS, longer)
end
keep(instance, record)
return 1
