-- ARGV: now in ms or '', limit, lease in ms, points that kill, points of a lost lease. Returns {token, user, user, ...}.
local now, limit, lease_ms = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local bound, lost_lease = tonumber(ARGV[4]), tonumber(ARGV[5])

for _, user in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now)) do
  local score = string.match(redis.call('HGET', CLAIMS, user), ' (%d+)$')
  count_against(user, lost_lease, bound, tonumber(score), now)
end

-- Tokens start at the clock, so that none from before a wiped Redis is given out twice.
redis.call('SET', TOKENS, string.format('%.0f', now * 1000), 'NX')
local token = redis.call('INCR', TOKENS)
local claimed = { token }
while #claimed <= limit do
  local popped = redis.call('ZPOPMIN', PENDING)
  local user, score = popped[1], popped[2]
  if not user then
    break
  end
  -- Whoever has failed before is claimed alone, so that it cannot drag others along.
  local alone = redis.call('HEXISTS', TROUBLE, user) == 1
  if alone and #claimed > 1 then
    redis.call('ZADD', PENDING, score, user)
    break
  end
  redis.call('ZADD', LEASES, now + lease_ms, user)
  redis.call('HSET', CLAIMS, user, string.format('%.0f %.0f', token, tonumber(score)))
  claimed[#claimed + 1] = user
  if alone then
    break
  end
end
ring()
return claimed
