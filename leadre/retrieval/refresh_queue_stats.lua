-- ARGV: now in ms or ''. Returns {now, claimed, dead, cut, budget left or '', counts, depth by group, oldest by group}.
-- Depths count who was marked again while claimed; the oldest are instants in ms, '' where nobody waits.
local now = clock(ARGV[1])
local depths, oldest = {}, {}
for group = 0, TOP_GROUP do
  local depth, longest = 0, math.huge
  for class = group, NEW + group, NEW do
    local low, high = class * 32 * STRIDE, (class + 1) * 32 * STRIDE - 1
    depth = depth + redis.call('ZCOUNT', PENDING, low, high) + redis.call('ZCOUNT', AGAIN, low, high)
    while low do -- from the first of a bucket, who waits longest in it, to the first of the next one
      local first = redis.call('ZRANGEBYSCORE', PENDING, low, high, 'WITHSCORES', 'LIMIT', 0, 1)[2]
      longest = first and math.min(longest, first % STRIDE) or longest
      low = first and first - first % STRIDE + STRIDE
    end
  end
  depths[group + 1] = depth
  oldest[group + 1] = longest < math.huge and longest or ''
end
local left = budget(now)
local counts = redis.call('HMGET', COUNTS, 'llm', 'cheap', 'expiries', 'died')
return {
  now,
  redis.call('ZCARD', LEASES),
  redis.call('ZCARD', DEAD),
  cut(),
  left < math.huge and string.format('%.17g', left) or '',
  counts,
  depths,
  oldest,
}
