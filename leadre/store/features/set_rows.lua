-- Sets rows of a feature view in the hashes of entities, each unless the row there is as new: the one place that writes
-- online. KEYS: the hashes. ARGV: seconds until they expire (0: keep what is set), whether a row that is equally new is
-- replaced (1 or 0), the field of the list record that fences the view's rows ('': none does), how many arguments a row
-- has, then each row's: pairs of field and value, of which the first is the row's time (`_ts:<view>`, a
-- google.protobuf.Timestamp). Returns how many were set, and how many were older than what is there.
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

-- Release epoch and behavior sequence of a list record in a feast.types.Value (docs/features.md): those of the first
-- format are 0, what is no record or has an altered fence is before any.
local function fence(value)
  if not value or value:byte(1) ~= 10 then return -1, -1 end
  local at, length, unit, byte = 2, 0, 1, nil
  repeat
    byte = value:byte(at)
    if not byte or at > 6 then return -1, -1 end
    length, unit, at = length + byte % 128 * unit, unit * 128, at + 1
  until byte < 128
  if #value ~= at - 1 + length then return -1, -1 end
  local format = value:byte(at)
  if format == 1 and length >= 52 then return 0, 0 end
  if format ~= 2 or length < 64 then return -1, -1 end
  local sum = 0x4C45
  for place = 1, 8 do sum = sum + place * value:byte(at + 1 + place) end
  if struct.unpack('<I2', value, at + 10) ~= sum then return -1, -1 end
  return struct.unpack('>I4', value, at + 2), (struct.unpack('>I4', value, at + 6))
end

local ttl, replace, fenced, size, written, older = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4]), 0, 0
for place, key in ipairs(KEYS) do
  local first = 5 + (place - 1) * size
  local time, ahead = ARGV[first + 1], 0 -- how far the row is ahead of the one there
  local there = redis.call('HMGET', key, ARGV[first], fenced)
  if fenced ~= '' then
    local record
    for at = first + 2, first + size - 1, 2 do
      if ARGV[at] == fenced then record = ARGV[at + 1] end
    end
    local epoch, sequence = fence(record)
    local epoch_there, sequence_there = fence(there[2])
    ahead = epoch ~= epoch_there and epoch - epoch_there or sequence - sequence_there
  end
  if ahead == 0 and there[1] ~= time then
    local new, old = instant(time), there[1] and instant(there[1])
    ahead = not old and 1 or (new[1] ~= old[1] and new[1] - old[1] or new[2] - old[2])
  end
  if ahead > 0 or (ahead == 0 and replace) then
    redis.call('HSET', key, unpack(ARGV, first, first + size - 1))
    written = written + 1
  elseif ahead < 0 and fenced ~= '' then
    older = older + 1
  end
  if ttl ~= '0' then
    redis.call('EXPIRE', key, ttl)
  end
end
return { written, older }
