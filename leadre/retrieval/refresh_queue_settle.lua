-- ARGV: outcome (done, failed, released, renewed), now in ms or '', points that kill, lease in ms, then pairs of user and
-- token. Returns how many claims were still held: a claim whose lease was taken over changes nothing any more.
local outcome, now, bound, lease_ms = ARGV[1], clock(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lowest = cut()
local settled = 0
for i = 5, #ARGV, 2 do
  local user = ARGV[i]
  local token, score, lane = string.match(redis.call('HGET', CLAIMS, user) or '', '^(%d+) (%d+) (%a+)$')
  if token == ARGV[i + 1] then
    settled = settled + 1
    local row = read(score)
    if outcome == 'renewed' then
      redis.call('ZADD', LEASES, now + lease_ms, user)
    elseif outcome == 'failed' then
      count_against(user, row, FAILURE, bound, now)
    elseif outcome == 'released' then
      enqueue(user, join(unclaim(user), row))
    else
      redis.call('HDEL', TROUBLE, user)
      -- A new user's cheap list is to bridge the time until the one of the LLM, unless the group is below the cut.
      local bridged = lane == 'cheap' and row.new and row.group >= lowest
      row = join(unclaim(user), bridged and row or nil)
      if row then
        row.new = false
        enqueue(user, row)
      end
    end
  end
end
ring(now)
return settled
