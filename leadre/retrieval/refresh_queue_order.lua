-- In which order a lane takes its users; between the common part and refresh_queue_claim.lua.
-- First those whom the lane is meant for: groups from the cut on in lane `llm`, never listed users in lane `cheap`. Then,
-- in either, the groups below the cut. Among them the most valuable first, of equally valuable ones who waits longest.
local ROWS = 64 -- of a bucket, looked at in one piece; of a new one its first alone, for most are never reached

-- Returns a function from a class (group, and whether never listed) to its front, the first rows of its first bucket, and
-- from there to the rows after these; nil: there are no more, or they are not the lane's.
local function fronts_of(lane)
  local values, discount, lowest = unpack(redis.call('HMGET', VALUES, 'values', 'discount', 'cut'))
  values, discount, lowest = values and cjson.decode(values), tonumber(discount or 0.8), tonumber(lowest or 0)

  local function rows_of(bucket, seen, count)
    return redis.call('ZRANGEBYSCORE', PENDING, bucket, bucket + STRIDE - 1, 'WITHSCORES', 'LIMIT', seen, count)
  end

  return function(class, after)
    local group, new = class % NEW, class >= NEW
    if lane == 'cheap' and not new and group >= lowest then
      return nil
    end
    local bucket, seen = after and after.bucket, after and after.seen
    local rows = after and rows_of(bucket, seen, ROWS)
    if not (rows and rows[1]) then
      local first = class * 32 * STRIDE
      local last = after and bucket - 1 or first + 32 * STRIDE - 1
      local top = redis.call('ZREVRANGEBYSCORE', PENDING, last, first, 'WITHSCORES', 'LIMIT', 0, 1)[2]
      if not top then
        return nil
      end
      bucket, seen = top - top % STRIDE, 0
      rows = rows_of(bucket, 0, 1)
    end
    return {
      class = class,
      meant = lane == 'cheap' and new or lane == 'llm' and group >= lowest,
      value = (values and values[group + 1] or group + 1) * (1 - discount ^ read(bucket).unseen),
      bucket = bucket,
      seen = seen + #rows / 2,
      rows = rows,
      at = 1,
    }
  end
end

local function before(one, other)
  if one.meant ~= other.meant then
    return one.meant
  elseif one.value ~= other.value then
    return one.value > other.value
  end
  local waits, other_waits = one.rows[one.at + 1] % STRIDE, other.rows[other.at + 1] % STRIDE
  return waits < other_waits or (waits == other_waits and one.class > other.class)
end

-- Calls `take(user, score)` in the lane's order until it returns false.
local function take_by_value(lane, take)
  local front_of, fronts = fronts_of(lane), {}
  for class = 0, NEW + TOP_GROUP do
    fronts[class] = front_of(class)
  end
  while true do
    local best, second
    for _, front in pairs(fronts) do
      if not best or before(front, best) then
        best, second = front, best
      elseif not second or before(front, second) then
        second = front
      end
    end
    if not best then
      return
    end
    repeat
      if not take(best.rows[best.at], best.rows[best.at + 1]) then
        return
      end
      best.at = best.at + 2
      if not best.rows[best.at] then
        fronts[best.class] = front_of(best.class, best)
        break
      end
    until second and before(second, best)
  end
end
