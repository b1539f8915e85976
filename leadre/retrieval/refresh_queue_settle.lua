-- ARGV: outcome (done, failed, released, renewed), now in ms or '', points that kill, lease in ms, then pairs of user and
-- token, each pair once. Returns how many claims were still held: one whose lease was taken over changes nothing.
local outcome, now, bound, lease_ms = ARGV[1], clock(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local given, held, rows, bridged = {}, {}, {}, {}
for i = 5, #ARGV, 2 do
  given[#given + 1] = ARGV[i]
end
local lowest, claims = cut(), call('HMGET', CLAIMS, given)
for i, user in ipairs(given) do
  local token, score, lane = string.match(claims[i] or '', '^(%d+) (%d+) (%a+)$')
  if token == ARGV[2 * i + 4] then
    held[#held + 1] = user
    local row = read(score)
    rows[#held] = row
    -- A new user's cheap list is to bridge the time until the one of the LLM, unless the group is below the cut.
    bridged[#held] = lane == 'cheap' and row.new and row.group >= lowest
  end
end

if outcome == 'renewed' then
  for _, user in ipairs(held) do
    redis.call('ZADD', LEASES, now + lease_ms, user)
  end
  return #held
end
local again = unclaim(held)
if outcome == 'done' then
  call('HDEL', TROUBLE, held)
end
for i, user in ipairs(held) do
  local row = join(read(again[i]), (outcome ~= 'done' or bridged[i]) and rows[i])
  if outcome == 'failed' then
    count_against(user, row, FAILURE, bound, now)
  elseif row then
    row.new = row.new and outcome ~= 'done'
    enqueue(user, row)
  end
end
flush()
ring(now)
return #held
