-- ARGV: now in ms or '', 1 for users without any list, then user, ARPU group ('' = as it is, or 0) and requests of each.
-- Returns how many requests are waited for because of this.
local now, new = clock(ARGV[1]), ARGV[2] == '1'
local marked = 0
for i = 3, #ARGV, 3 do
  local user, group, requests = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if not redis.call('ZSCORE', DEAD, user) then
    local claimed = redis.call('ZSCORE', LEASES, user)
    local old = read(redis.call('ZSCORE', claimed and AGAIN or PENDING, user))
    local row = join({ new = new, group = group or old and old.group or 0, unseen = requests, since = now }, old)
    if claimed then
      redis.call('ZADD', AGAIN, write(row), user)
    else
      enqueue(user, row)
    end
    marked = marked + requests
  end
end
ring(now)
return marked
