-- ARGV: now in ms or '', lease in ms, work, then the instances. Returns {token, place of the chosen one, work of each}.
local now, lease_ms, work = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
expire(now)
-- Tokens start at the clock, so that none from before a wiped Redis is given out twice.
redis.call('SET', TOKENS, string.format('%.0f', now * 1000), 'NX')
local token = redis.call('INCR', TOKENS)

local names, records, open = {}, {}, {}
for i = 4, #ARGV do
  names[#names + 1] = ARGV[i]
end
local texts = redis.call('HMGET', RECORDS, unpack(names))
local mean_done, mean_busy = 0, 0
for i = 1, #names do
  local record = record_of(texts[i] or nil)
  records[i] = record
  if record.failures == 0 or (now >= record.ejected and record.work == 0) then
    open[#open + 1] = i
  end
end
if #open == 0 then -- better to try one than to give up
  for i = 1, #names do
    open[i] = i
  end
end
for _, i in ipairs(open) do
  if records[i].done > 0 and records[i].busy > 0 then
    mean_done, mean_busy = mean_done + records[i].done, mean_busy + records[i].busy
  end
end
if mean_done == 0 then
  mean_done, mean_busy = 1, 1
end

local best, least = nil, math.huge
for step = 0, #open - 1 do
  local i = open[(token + step) % #open + 1]
  local record = records[i]
  local busy, done = mean_busy, mean_done
  if record.done > 0 and record.busy > 0 then
    busy, done = record.busy, record.done
  end
  local time = (record.work + work) * busy / done
  if time < least then
    best, least = i, time
  end
end

local chosen = records[best]
pass_time(chosen, now)
chosen.work = chosen.work + work
keep(names[best], chosen)
local name = string.format('%.0f', token)
redis.call('HSET', DISPATCHES, name, string.format('%.0f %s', work, names[best]))
redis.call('ZADD', LEASES, now + lease_ms, name)

if token % 4096 == 0 then -- instances that are gone for an hour
  local all = redis.call('HGETALL', RECORDS)
  for i = 1, #all, 2 do
    local record = record_of(all[i + 1])
    if record.work == 0 and record.since < now - FORGET_MS then
      redis.call('HDEL', RECORDS, all[i])
    end
  end
end

local answer = { token, best - 1 }
for i = 1, #names do
  answer[i + 2] = records[i].work
end
return answer
