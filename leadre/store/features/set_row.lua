-- Sets a feature view's row in the hash of an entity, unless the row there is as new: the one place that writes online.
-- KEYS: the hash. ARGV: seconds until the hash expires (0: keep what is set), whether a row of an equal time is replaced
-- (1 or 0), then pairs of field and value, of which the first is the row's time (`_ts:<view>`, a
-- google.protobuf.Timestamp). Returns 1 if it was set, 0 if it was left.
-- What a live writer touches does not expire, so the time to live begins anew in both cases.

-- Seconds and nanoseconds, exact where numbers are doubles: a varint's upper 15 bits are counted apart.
local function instant(value)
  local time, bytes, at = { 0, 0 }, { value:byte(1, -1) }, 1
  while at <= #bytes do
    local which, low, high, place = bytes[at] / 8, 0, 0, 0
    repeat
      at = at + 1
      local byte = bytes[at]
      if not byte or place > 9 then return nil end
      if place < 7 then low = low + byte % 128 * 128 ^ place else high = high + byte % 128 * 128 ^ (place - 7) end
      place = place + 1
    until byte < 128
    if which ~= 1 and which ~= 2 then return nil end
    time[which] = (high < 2 ^ 14 and high or high - 2 ^ 15) * 2 ^ 49 + low
    at = at + 1
  end
  return time
end

local before = redis.call('HGET', KEYS[1], ARGV[3])
local set = not before or before == ''
if not set and before == ARGV[4] then
  set = ARGV[2] == '1'
elseif not set then
  local old, new = instant(before), instant(ARGV[4])
  set = not old or new[1] > old[1] or (new[1] == old[1] and (new[2] > old[2] or new[2] == old[2] and ARGV[2] == '1'))
end
if set then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
end
if ARGV[1] ~= '0' then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return set and 1 or 0
