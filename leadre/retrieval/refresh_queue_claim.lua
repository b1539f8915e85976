-- ARGV: now in ms or '', limit, lease in ms, lane ('llm' or 'cheap'), points that kill.
-- Returns {token, now, user, score, user, score, ...}.
local now, limit, lease_ms, lane = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

for _, user in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 500)) do
  local score = string.match(redis.call('HGET', CLAIMS, user), ' (%d+) ')
  count_against(user, read(score), LOST_LEASE, tonumber(ARGV[5]), now)
  redis.call('HINCRBY', COUNTS, 'expiries', 1)
end

-- Tokens start at the clock, so that none from before a wiped Redis is given out twice.
redis.call('SET', TOKENS, string.format('%.0f', now * 1000), 'NX')
local token = redis.call('INCR', TOKENS)
local left = lane == 'llm' and budget(now) or math.huge
limit = math.min(limit, math.floor(left))
local answer, taken = { token, now }, 0

-- Returns whether the claim may take another user.
local function take(user, score)
  -- Whoever has failed before is claimed alone, so that it cannot drag others along.
  local alone = tonumber(redis.call('HGET', TROUBLE, user) or 0) >= FAILURE
  if alone and taken > 0 then
    return false
  end
  redis.call('ZREM', PENDING, user)
  redis.call('ZREM', WAITING, user)
  redis.call('ZADD', LEASES, now + lease_ms, user)
  redis.call('HSET', CLAIMS, user, string.format('%.0f %.0f %s', token, score, lane))
  taken = taken + 1
  answer[#answer + 1], answer[#answer + 2] = user, score
  return not alone and taken < limit
end

-- A share of the claim is for who waits longest, whatever the value; what a share of a user is left over waits, too.
local function take_longest_waiting()
  local share = tonumber(redis.call('HGET', VALUES, 'floor') or 100)
  local owed = tonumber(redis.call('HGET', BUDGET, 'owed') or 0) + share * limit
  redis.call('HSET', BUDGET, 'owed', owed % 1000)
  for _, user in ipairs(redis.call('ZRANGE', WAITING, 0, math.floor(owed / 1000) - 1)) do
    if not take(user, redis.call('ZSCORE', PENDING, user)) then
      return false
    end
  end
  return true
end

if limit >= 1 then
  local scarce = lane == 'llm' and redis.call('ZCARD', PENDING) > limit
  if not scarce or take_longest_waiting() then
    take_by_value(lane, take)
  end
end
if left < math.huge then
  local at = tonumber(redis.call('HGET', BUDGET, 'at') or now)
  redis.call('HSET', BUDGET, 'left', string.format('%.17g', left - taken), 'at', math.max(now, at))
end
redis.call('HINCRBY', COUNTS, lane, taken)
ring(now)
return answer
