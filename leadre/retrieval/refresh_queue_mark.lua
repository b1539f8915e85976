-- ARGV: now in ms or '', 1 for users without any list, then user, ARPU group ('' = as it is, or 0) and requests of each;
-- the users are different. Returns how many requests are waited for because of this.
local now, new = clock(ARGV[1]), ARGV[2] == '1'
local users, marked, again = {}, 0, {}
for i = 3, #ARGV, 3 do
  users[#users + 1] = ARGV[i]
end
local dead, leases = call('ZMSCORE', DEAD, users), call('ZMSCORE', LEASES, users)
local pending, pending_again = call('ZMSCORE', PENDING, users), call('ZMSCORE', AGAIN, users)
for i, user in ipairs(users) do
  local group, requests = tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  if not dead[i] then
    local old = read(leases[i] and pending_again[i] or pending[i])
    local row = join({ new = new, group = group or old and old.group or 0, unseen = requests, since = now }, old)
    if leases[i] then
      again[#again + 1], again[#again + 2] = write(row), user
    else
      enqueue(user, row)
    end
    marked = marked + requests
  end
end
call('ZADD', AGAIN, again)
flush()
ring(now)
return marked
