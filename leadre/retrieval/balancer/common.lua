-- What the three scripts share; leadre/retrieval/balancer/shared.py puts it in front of each of them. The same arithmetic
-- as leadre/retrieval/balancer/counters.py, which says why. Numbers are whole, times are milliseconds of Redis's clock.
local LEASES, DISPATCHES, RECORDS, TOKENS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local PACE_MS = 10000
local FIRST_EJECTION_MS, LONGEST_EJECTION_MS = 1000, 30000
local FORGET_MS = 3600000

local function clock(given_ms)
  if given_ms ~= '' then
    return tonumber(given_ms)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function record_of(text)
  local work, done, busy, since, failures, until_ = string.match(text or '0 0 0 0 0 0', '(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)')
  return {
    work = tonumber(work), done = tonumber(done), busy = tonumber(busy),
    since = tonumber(since), failures = tonumber(failures), ejected = tonumber(until_),
  }
end

local function keep(instance, record)
  redis.call('HSET', RECORDS, instance, string.format('%.0f %.0f %.0f %.0f %.0f %.0f',
    record.work, record.done, record.busy, record.since, record.failures, record.ejected))
end

local function pass_time(record, now)
  if record.work > 0 and now > record.since then
    record.busy = record.busy + now - record.since
    if record.busy > PACE_MS then
      record.busy = math.floor(record.busy / 2)
      record.done = math.floor(record.done / 2)
    end
  end
  record.since = math.max(record.since, now)
end

-- A dispatch leaves its instance's record, which is returned and not kept yet; nil if it left before.
local function take_back(token, now)
  local work, instance = string.match(redis.call('HGET', DISPATCHES, token) or '', '^(%d+) (.+)$')
  if not work then
    return nil
  end
  redis.call('HDEL', DISPATCHES, token)
  redis.call('ZREM', LEASES, token)
  local record = record_of(redis.call('HGET', RECORDS, instance))
  pass_time(record, now)
  record.work = math.max(0, record.work - tonumber(work)) -- below 0 only if Redis evicted a key
  return instance, record, tonumber(work)
end

local function expire(now)
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now)) do
    local instance, record = take_back(token, now)
    if instance then
      keep(instance, record)
    else
      redis.call('ZREM', LEASES, token)
    end
  end
end
