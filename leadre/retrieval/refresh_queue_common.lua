-- What the three scripts share; leadre/retrieval/refresh_queue.py puts it in front of each of them.
-- A score says who is next: (24 - ARPU group) * STRIDE + milliseconds since 1970. A higher group comes first, within
-- a group whoever waits longest. STRIDE is 2^42 ms (the year 2109), the largest score 25 * 2^42 < 2^53: exact in a double.
local PENDING, AGAIN, LEASES, CLAIMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local TROUBLE, DEAD, DOORBELL, TOKENS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local STRIDE = 4398046511104
local TOP_GROUP = 24

local function clock(given_ms)
  if given_ms ~= '' then
    return tonumber(given_ms)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function enqueue(key, user, score)
  redis.call('ZADD', key, string.format('%.0f', score), user)
end

local function ring()
  if redis.call('ZCARD', PENDING) > 0 and redis.call('LLEN', DOORBELL) == 0 then
    redis.call('LPUSH', DOORBELL, 1)
  end
end

-- A claim ends. `score` makes the user wait again (nil: its work is done). A mark from in between counts in any case:
-- its group is the newer one, and the older of the two times says since when the user waits.
local function unclaim(user, score)
  redis.call('ZREM', LEASES, user)
  redis.call('HDEL', CLAIMS, user)
  local again = tonumber(redis.call('ZSCORE', AGAIN, user) or nil)
  if again then
    redis.call('ZREM', AGAIN, user)
    score = again - again % STRIDE + math.min(again % STRIDE, (score or again) % STRIDE)
  end
  if score then
    enqueue(PENDING, user, score)
  end
end

-- An attempt that came to nothing: back to the end of the user's group, or to the dead set at `bound` points.
local function count_against(user, points, bound, score, now)
  if redis.call('HINCRBY', TROUBLE, user, points) >= bound then
    redis.call('ZREM', LEASES, user)
    redis.call('ZREM', AGAIN, user)
    redis.call('HDEL', CLAIMS, user)
    redis.call('HDEL', TROUBLE, user)
    redis.call('ZADD', DEAD, now, user)
  else
    unclaim(user, score - score % STRIDE + now)
    local kept = tonumber(redis.call('ZSCORE', PENDING, user))
    enqueue(PENDING, user, kept - kept % STRIDE + now)
  end
end
