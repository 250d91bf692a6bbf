"""Lua scripts that move commands in Redis, each step in one atomic call.

Each looks at the entry of a command and at its record (``commands:sent:{command_id}``) first;
see :mod:`tracker.commands.ledger`.
"""

from __future__ import annotations

from typing import Final

from tracker.command import MAX_FIELDS, Reason
from tracker.keys import (
    CONNECTIONS,
    INGEST_GROUP,
    RESPONSES,
    WAITING,
    heartbeat,
    outbound,
    waiting_commands,
)
from tracker.redis.script import Script

#: Functions of scripts that move commands. An entry of the device registry counts only while
#: its instance is alive, and is not the one that reports the device as absent.
MOVING: Final = f"""\
local REGISTRY, WAITING = '{CONNECTIONS}', '{WAITING}'
local OUTBOUND, HEARTBEAT = '{outbound("")}', '{heartbeat("")}'
local WAITING_FOR = '{waiting_commands("")}'
local function owner_of(device, but_not)
  local owner = redis.call('HGET', REGISTRY, device)
  if owner and owner ~= but_not and redis.call('EXISTS', HEARTBEAT .. owner) == 1 then
    return owner
  end
end
local function place(device, owner, fields)
  -- unpack has a limit. What has too many fields is not a command, and is cut to a number of
  -- fields that still shows that.
  local most = math.min(#fields, {2 * MAX_FIELDS + 2})
  if owner then
    redis.call('XADD', OUTBOUND .. owner, '*', unpack(fields, 1, most))
  else
    -- In this order: if the set is of another type, no entry is added at each attempt.
    redis.call('SADD', WAITING, device)
    redis.call('XADD', WAITING_FOR .. device, '*', unpack(fields, 1, most))
  end
end
local function collect(device, owner)
  if redis.call('SISMEMBER', WAITING, device) == 0 then return 0 end
  local entries = redis.call('XRANGE', WAITING_FOR .. device, '-', '+')
  for _, entry in ipairs(entries) do place(device, owner, entry[2]) end
  redis.call('DEL', WAITING_FOR .. device)
  redis.call('SREM', WAITING, device)
  return #entries
end
"""

# KEYS: the stream, the record of the command (or empty, if there is no usable command id) and,
# for a janitor, the heartbeat of the instance that it takes for dead (or empty). ARGV: entry,
# command id, device, the name that the response has, time, how long the record is kept (ms).
_OPERATION: Final = (
    MOVING
    + f"""\
local RESPONSES, GROUP = '{RESPONSES}', '{INGEST_GROUP}'
local stream, record, id = KEYS[1], KEYS[2], ARGV[1]
if KEYS[3] ~= '' and redis.call('EXISTS', KEYS[3]) == 1 then return 'lives' end
local function respond(status, reason, response)
  return redis.call('XADD', RESPONSES, '*', 'command_id', ARGV[2], 'device_id', ARGV[3],
    'instance_id', ARGV[4], 'status', status, 'response', response, 'reason', reason,
    'at', ARGV[5])
end
local function drop()
  redis.call('XACK', stream, GROUP, id)
  redis.call('XDEL', stream, id)
end
local function finish(status, reason, response)
  local answer = respond(status, reason, response)
  if record ~= '' then
    redis.call('SET', record, 'done ' .. status .. ' ' .. answer, 'PX', ARGV[6])
  end
  drop()
end
local function doubt() finish('failed', '{Reason.IN_DOUBT}', '') end
-- Another client may have written into the record what is not the ID of an entry.
local function entry(where, which) return redis.pcall('XRANGE', where, which, which)[1] end

local here = entry(stream, id)
local phase, where, which
local state = 'open'
local value = record ~= '' and redis.pcall('GET', record)
if value then
  phase, where, which = tostring(value):match('^(%a+) (%S+) (%S+)$')
  if phase == 'done' then state = 'over'
  elseif (phase == 'sent' or phase == 'delivered') and where == stream and which == id then
    state = 'ours'
  elseif (phase == 'sent' or phase == 'delivered') and entry(where, which) then
    state = 'over'  -- for this entry: another one is responsible
  else
    state = 'doubtful'
  end
end
-- Ends a command that must not be begun, or not again; returns how: 'doubted' is 'over', too.
local function ended()
  if not here and state ~= 'ours' then return 'gone' end
  if state == 'over' then drop() return 'over' end
  if state == 'doubtful' then doubt() return 'doubted' end
end
"""
)

CLAIM: Final = Script(
    _OPERATION
    + """\
local how = ended()
if how then return how end
if phase == 'delivered' then doubt() return 'doubted' end
if state == 'open' then redis.call('SET', record, 'sent ' .. stream .. ' ' .. id, 'PX', ARGV[6]) end
return 'won'
"""
)

RECOVER: Final = Script(
    _OPERATION
    + """\
local how = ended()
if how then return how end
if state == 'ours' then doubt() return 'doubted' end
return 'open'
"""
)

DELIVERED: Final = Script(
    _OPERATION
    + """\
if phase == 'sent' and state == 'ours' then
  respond('delivered', '', '')
  redis.call('SET', record, 'delivered ' .. stream .. ' ' .. id, 'KEEPTTL')
end
return 'said'
"""
)

# ARGV, too: status, reason, response, and whether it was written ('1') or not ('0'). A command
# that was written gets its response even if Redis has lost its entry, as after a flush.
FINISH: Final = Script(
    _OPERATION
    + """\
if not (state == 'open' and not here and ARGV[10] == '1') then
  local how = ended()
  if how then return how end
end
finish(ARGV[7], ARGV[8], ARGV[9])
return 'finished'
"""
)

# ARGV, too: the instance that the device is not connected to (or empty); whether the command
# waits ('1') or fails ('0') if its device is not connected; and whether this instance is sure
# not to have written it though it may have claimed it ('1'), or does not know ('0').
OFFER: Final = Script(
    _OPERATION
    + f"""\
local how = ended()
if how then return how end
if state == 'ours' then
  if ARGV[9] == '0' then doubt() return 'doubted' end
  redis.call('DEL', record)
end
if not here then return 'gone' end
local owner = owner_of(ARGV[3], ARGV[7])
if not owner and ARGV[8] == '0' then
  finish('failed', '{Reason.OFFLINE}', '')
  return 'finished'
end
place(ARGV[3], owner, here[2])
drop()
return owner and 'moved' or 'waits'
"""
)

# ARGV, too: whether the command waits ('1') or fails ('0') if its device is not connected; the
# fields. There is no entry yet.
SUBMIT: Final = Script(
    _OPERATION
    + f"""\
if state ~= 'open' then return {{'known', ''}} end
local owner = owner_of(ARGV[3], '')
if not owner and ARGV[7] == '0' then
  finish('failed', '{Reason.OFFLINE}', '')
  return {{'finished', ''}}
end
place(ARGV[3], owner, {{unpack(ARGV, 8)}})
return {{owner and 'moved' or 'waits', owner or ''}}
"""
)

# ARGV: the device.
REVIEW_WAITING: Final = Script(
    MOVING
    + """\
local owner = owner_of(ARGV[1], '')
if owner then return collect(ARGV[1], owner) end
if redis.call('XLEN', WAITING_FOR .. ARGV[1]) == 0 then
  redis.call('DEL', WAITING_FOR .. ARGV[1])
  redis.call('SREM', WAITING, ARGV[1])
end
return 0
"""
)

# KEYS: the stream, the heartbeat.
REMOVE_EMPTY: Final = Script("""\
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('XLEN', KEYS[1]) > 0 then return 0 end
return redis.call('DEL', KEYS[1])
""")
