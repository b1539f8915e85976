-- ARGV: now in ms or '', lease in ms, then tokens. Returns how many were still held.
local now, lease_ms = clock(ARGV[1]), tonumber(ARGV[2])
expire(now)
local held = 0
for i = 3, #ARGV do
  if redis.call('HEXISTS', DISPATCHES, ARGV[i]) == 1 then
    redis.call('ZADD', LEASES, now + lease_ms, ARGV[i])
    held = held + 1
  end
end
return held
