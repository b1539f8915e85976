-- ARGV: now in ms or '', then pairs of user and ARPU group ('' = as it is, or 0). Returns how many users wait because of this.
local now = clock(ARGV[1])
local marked = 0
for i = 2, #ARGV, 2 do
  local user, group = ARGV[i], tonumber(ARGV[i + 1])
  if not redis.call('ZSCORE', DEAD, user) then
    local key = redis.call('ZSCORE', LEASES, user) and AGAIN or PENDING
    local old = tonumber(redis.call('ZSCORE', key, user) or nil)
    if not group then
      group = old and TOP_GROUP - math.floor(old / STRIDE) or 0
    end
    local since = old and math.min(old % STRIDE, now) or now
    enqueue(key, user, (TOP_GROUP - group) * STRIDE + since)
    marked = marked + 1
  end
end
ring()
return marked
