-- ARGV: outcome (done, failed, released), now in ms or '', points that kill, points of a failure, then pairs of user and token.
-- Returns how many claims were still held: a claim whose lease ran out changes nothing any more.
local outcome, now = ARGV[1], clock(ARGV[2])
local bound, failure = tonumber(ARGV[3]), tonumber(ARGV[4])
local settled = 0
for i = 5, #ARGV, 2 do
  local user = ARGV[i]
  local token, score = string.match(redis.call('HGET', CLAIMS, user) or '', '^(%d+) (%d+)$')
  if token == ARGV[i + 1] then
    settled = settled + 1
    if outcome == 'done' then
      redis.call('HDEL', TROUBLE, user)
      unclaim(user, nil)
    elseif outcome == 'failed' then
      count_against(user, failure, bound, tonumber(score), now)
    else
      unclaim(user, tonumber(score))
    end
  end
end
ring()
return settled
