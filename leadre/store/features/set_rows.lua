-- Sets rows of a feature view in the hashes of entities, each unless the row there is as new: the one place that writes
-- online. KEYS: the hashes. ARGV: seconds until they expire (0: keep what is set), whether a row of an equal time is
-- replaced (1 or 0), how many arguments a row has, then each row's: pairs of field and value, of which the first is the
-- row's time (`_ts:<view>`, a google.protobuf.Timestamp). Returns how many were set.
-- What a live writer touches does not expire, so the time to live begins anew in any case.

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

local call, ttl, replace, size, written = redis.call, ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), 0
for place, key in ipairs(KEYS) do
  local first = 4 + (place - 1) * size
  local before, time = call('HGET', key, ARGV[first]), ARGV[first + 1]
  local set = not before or before == ''
  if not set and before == time then
    set = replace
  elseif not set then
    local old, new = instant(before), instant(time)
    set = not old or new[1] > old[1] or (new[1] == old[1] and (new[2] > old[2] or (new[2] == old[2] and replace)))
  end
  if set then
    call('HSET', key, unpack(ARGV, first, first + size - 1))
    written = written + 1
  end
  if ttl ~= '0' then
    call('EXPIRE', key, ttl)
  end
end
return written
