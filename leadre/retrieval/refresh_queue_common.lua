-- What the scripts share; leadre/retrieval/refresh_queue.py puts it in front of each of them.
-- A waiting user is one score: ((never listed * 32 + ARPU group) * 32 + unseen requests) * 2^42 + ms since 1970. It is
-- exact in a double (11 + 42 bits, until the year 2109). Users with the same first part are a bucket, in which who waits
-- longest is first. What a bucket is worth is asked when users are claimed, so new values move nobody.
local PENDING, WAITING, AGAIN, LEASES, CLAIMS, TROUBLE, DEAD = unpack(KEYS, 1, 7)
local DOORBELL, TOKENS, VALUES, BUDGET, COUNTS = unpack(KEYS, 8, 12)
local STRIDE, MOST_UNSEEN, TOP_GROUP, NEW = 4398046511104, 31, 24, 32
local FAILURE, LOST_LEASE = 2, 1 -- points; whoever has `FAILURE` of them is claimed alone

local function clock(given_ms)
  if given_ms ~= '' then
    return tonumber(given_ms)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function class_of(score)
  return math.floor(score / (STRIDE * 32))
end

local function read(score)
  if not score then
    return nil
  end
  local class = class_of(score)
  local unseen = math.floor(score / STRIDE) % 32
  return { new = class >= NEW, group = class % NEW, unseen = unseen, since = score % STRIDE }
end

local function write(row)
  local class = row.group + (row.new and NEW or 0)
  return string.format('%.0f', (class * 32 + math.min(row.unseen, MOST_UNSEEN)) * STRIDE + row.since)
end

-- One command for many members. They are 256 rows at most, so that unpack takes them.
local function call(command, key, members)
  return #members > 0 and redis.call(command, key, unpack(members)) or {}
end

local waits, since = {}, {}

-- The row waits once `flush` is called.
local function enqueue(user, row)
  waits[#waits + 1], waits[#waits + 2] = write(row), user
  since[#since + 1], since[#since + 2] = row.since, user
end

local function flush()
  call('ZADD', PENDING, waits)
  call('ZADD', WAITING, since)
  waits, since = {}, {}
end

-- Requests from before and after as one row: the newer group, the older time. Either may be nil.
local function join(newer, older)
  if not (newer and older) then
    return newer or older
  end
  return {
    new = newer.new or older.new,
    group = newer.group,
    unseen = newer.unseen + older.unseen,
    since = math.min(newer.since, older.since),
  }
end

-- The leases of different users end. Returns for each what was requested meanwhile, or false.
local function unclaim(users)
  local again = call('ZMSCORE', AGAIN, users)
  call('ZREM', AGAIN, users)
  call('ZREM', LEASES, users)
  call('HDEL', CLAIMS, users)
  return again
end

-- An attempt that came to nothing: back to the end of the user's bucket, or to the dead set at `bound` points.
local function count_against(user, row, points, bound, now)
  if redis.call('HINCRBY', TROUBLE, user, points) >= bound then
    redis.call('HDEL', TROUBLE, user)
    redis.call('ZADD', DEAD, now, user)
    redis.call('HINCRBY', COUNTS, 'died', 1)
  else
    row.since = now
    enqueue(user, row)
  end
end

local function cut()
  return tonumber(redis.call('HGET', VALUES, 'cut') or 0)
end

-- How many users the budget allows now, with the fraction.
local function budget(now)
  local rate, burst, left, at = unpack(redis.call('HMGET', BUDGET, 'users_per_s', 'burst', 'left', 'at'))
  rate, burst = tonumber(rate or 0), tonumber(burst or 0)
  if rate == 0 then
    return math.huge
  end
  return math.min(burst, tonumber(left or burst) + math.max(0, now - tonumber(at or now)) * rate / 1000)
end

-- Whether a claim would bring something: a lease that ran out, a user within the budget or one who needs none.
local function due(now)
  if redis.call('ZCOUNT', LEASES, '-inf', now) > 0 then
    return true
  end
  local last = redis.call('ZREVRANGE', PENDING, 0, 0, 'WITHSCORES')[2]
  if not last then
    return false
  end
  local first = redis.call('ZRANGE', PENDING, 0, 0, 'WITHSCORES')[2]
  return budget(now) >= 1 or class_of(last) >= NEW or class_of(first) < cut()
end

local function ring(now)
  if due(now) and redis.call('LLEN', DOORBELL) == 0 then
    redis.call('LPUSH', DOORBELL, 1)
  end
end
