-- Sets rows of a feature view in the hashes of entities, each unless the row there is as new: the one place that writes
-- online. KEYS: the hashes. ARGV: seconds until they expire (0: keep what is set), whether a row that is equally new is
-- replaced (1 or 0), the field of the list record that fences the view's rows ('': none does), how many arguments a row
-- has, then each row's: pairs of field and value, of which the first is the row's time (`_ts:<view>`, a
-- google.protobuf.Timestamp). Returns how many were set, and how many were older than what is there.
-- What a live writer touches does not expire, so the time to live begins anew in any case.

local byte_of, call = string.byte, redis.call -- a third of the time is finding what is called

-- Seconds and nanoseconds, exact where numbers are doubles: a varint's upper 15 bits are counted apart.
local function instant(value)
  local seconds, nanos, at = 0, 0, 1
  while at <= #value do
    local tag, low, high, unit, place = byte_of(value, at), 0, 0, 1, 0
    if tag ~= 8 and tag ~= 16 then return nil end
    repeat
      at = at + 1
      local byte = byte_of(value, at)
      if not byte or place > 9 then return nil end
      if place < 7 then low = low + byte % 128 * unit else high = high + byte % 128 * unit end
      unit, place = place == 6 and 1 or unit * 128, place + 1
    until byte < 128
    low = (high < 2 ^ 14 and high or high - 2 ^ 15) * 2 ^ 49 + low
    if tag == 8 then seconds = low else nanos = low end
    at = at + 1
  end
  return seconds, nanos
end

-- Release epoch and behavior sequence of a list record in a feast.types.Value (docs/features.md): those of the first
-- format are 0, what is no record or has an altered fence is before any. In numbers: strings compare as the server's
-- locale has it.
local function fence(value)
  if not value or byte_of(value) ~= 10 then return -1, -1 end
  local at, length, unit, byte = 2, 0, 1, nil
  repeat
    byte = byte_of(value, at)
    if not byte or at > 6 then return -1, -1 end
    length, unit, at = length + byte % 128 * unit, unit * 128, at + 1
  until byte < 128
  if #value ~= at - 1 + length then return -1, -1 end
  local format, _, a, b, c, d, e, f, g, h, low, high = byte_of(value, at, at + 11)
  if format == 1 and length >= 52 then return 0, 0 end
  if format ~= 2 or length < 64 then return -1, -1 end
  local sum = 0x4C45 + a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h
  if sum ~= low + 256 * high then return -1, -1 end
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
end

local ttl, replace, fenced, size, written, older = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4]), 0, 0
for place, key in ipairs(KEYS) do
  local first = 5 + (place - 1) * size
  local time, ahead = ARGV[first + 1], 0 -- how far the row is ahead of the one there
  local there = call('HMGET', key, ARGV[first], fenced)
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
    local seconds, nanos = instant(time)
    local seconds_there, nanos_there = instant(there[1] or 'none')
    ahead = not seconds_there and 1 or (seconds ~= seconds_there and seconds - seconds_there or nanos - nanos_there)
  end
  if ahead > 0 or (ahead == 0 and replace) then
    call('HSET', key, unpack(ARGV, first, first + size - 1))
    written = written + 1
  elseif ahead < 0 and fenced ~= '' then
    older = older + 1
  end
  if ttl ~= '0' then
    call('EXPIRE', key, ttl)
  end
end
return { written, older }
