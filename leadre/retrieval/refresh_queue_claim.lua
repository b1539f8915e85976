-- ARGV: now in ms or '', limit, lease in ms, lane ('llm' or 'cheap'), points that kill.
-- Returns {token, now, user, score, user, score, ...}.
local now, limit, lease_ms, lane = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 128)
local claims = call('HMGET', CLAIMS, expired)
local again = unclaim(expired)
for i, user in ipairs(expired) do
  local row = read(string.match(claims[i], ' (%d+) '))
  count_against(user, join(read(again[i]), row), LOST_LEASE, tonumber(ARGV[5]), now)
end
flush()

-- Tokens start at the clock, so that none from before a wiped Redis is given out twice.
redis.call('SET', TOKENS, string.format('%.0f', now * 1000), 'NX')
local token = redis.call('INCR', TOKENS)
local left = lane == 'llm' and budget(now) or math.huge
limit = math.min(limit, math.floor(left))
local ends, holder = string.format('%.0f', now + lease_ms), string.format('%.0f ', token)
local troubles = redis.call('HLEN', TROUBLE) > 0
local answer, taken, leases, rows = { token, now }, {}, {}, {}

-- Returns whether the claim may take another user.
local function take(user, score)
  if taken[user] then
    return true
  end
  -- Whoever has failed before is claimed alone, so that it cannot drag others along.
  local alone = troubles and tonumber(redis.call('HGET', TROUBLE, user) or 0) >= FAILURE
  if alone and #leases > 0 then
    return false
  end
  taken[user] = true
  answer[#answer + 1], answer[#answer + 2] = user, score
  leases[#leases + 1], leases[#leases + 2] = ends, user
  rows[#rows + 1], rows[#rows + 2] = user, holder .. score .. ' ' .. lane
  return not alone and #leases < 2 * limit
end

-- A share of the claim is for who waits longest, whatever the value; what a share of a user is left over waits, too.
local function take_longest_waiting()
  local share = tonumber(redis.call('HGET', VALUES, 'floor') or 100)
  local owed = tonumber(redis.call('HGET', BUDGET, 'owed') or 0) + share * limit
  redis.call('HSET', BUDGET, 'owed', owed % 1000)
  local oldest = redis.call('ZRANGEBYSCORE', WAITING, '-inf', '+inf', 'LIMIT', 0, math.floor(owed / 1000))
  for _, user in ipairs(oldest) do
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
local users = {}
for user in pairs(taken) do
  users[#users + 1] = user
end
call('ZREM', PENDING, users)
call('ZREM', WAITING, users)
call('ZADD', LEASES, leases)
call('HSET', CLAIMS, rows)
if left < math.huge then
  local at = tonumber(redis.call('HGET', BUDGET, 'at') or now)
  redis.call('HSET', BUDGET, 'left', string.format('%.17g', left - #users), 'at', math.max(now, at))
end
redis.call('HINCRBY', COUNTS, lane, #users)
redis.call('HINCRBY', COUNTS, 'expiries', #expired)
ring(now)
return answer
