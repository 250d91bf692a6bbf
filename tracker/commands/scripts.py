"""Lua scripts that move and end commands in Redis.

Each script first checks the entry of the command and its record (``commands:sent:{command_id}``);
see :mod:`tracker.commands.ledger`.
"""

from __future__ import annotations

from typing import Final

from tracker.command import MAX_FIELDS, Reason
from tracker.keys import (
    CONNECTIONS,
    DEADLINES,
    INGEST_GROUP,
    RESPONSES,
    WAITING,
    heartbeat,
    outbound,
    waiting_commands,
)
from tracker.redis.script import Script

#: Lua functions that move commands. An entry of the device registry counts only if its instance
#: is alive, and is not the instance that reports the device as disconnected.
MOVING: Final = f"""\
local REGISTRY, WAITING = '{CONNECTIONS}', '{WAITING}'
local OUTBOUND, HEARTBEAT = '{outbound("")}', '{heartbeat("")}'
local WAITING_FOR = '{waiting_commands("")}'
local DEADLINES = '{DEADLINES}'
-- The index of deadlines only speeds up the expiry of commands: pcall, because an error with it (a
-- key of another type, or a user without the right) must not affect them.
local function forget_deadline(stream, id)
  redis.pcall('ZREM', DEADLINES, stream .. ' ' .. id)
end
local function owner_of(device, excluded)
  local owner = redis.call('HGET', REGISTRY, device)
  if owner and owner ~= excluded and redis.call('EXISTS', HEARTBEAT .. owner) == 1 then
    return owner
  end
end
local function enqueue(device, owner, fields, deadline)
  -- unpack is limited. An entry with more fields than a command may have is not a command; it is
  -- cut to one field more than that, so that its reader still refuses it.
  local count = math.min(#fields, {2 * MAX_FIELDS + 2})
  local stream = owner and OUTBOUND .. owner or WAITING_FOR .. device
  -- SADD first: if the key has another type, it fails before an entry is added.
  if not owner then redis.call('SADD', WAITING, device) end
  local id = redis.call('XADD', stream, '*', unpack(fields, 1, count))
  if deadline then redis.pcall('ZADD', DEADLINES, deadline, stream .. ' ' .. id) end
end
local function collect(device, owner)
  if redis.call('SISMEMBER', WAITING, device) == 0 then return 0 end
  local stream = WAITING_FOR .. device
  local entries = redis.call('XRANGE', stream, '-', '+')
  for _, entry in ipairs(entries) do
    local deadline = redis.pcall('ZSCORE', DEADLINES, stream .. ' ' .. entry[1])
    enqueue(device, owner, entry[2], type(deadline) == 'string' and deadline)
    if deadline then forget_deadline(stream, entry[1]) end
  end
  redis.call('DEL', stream)
  redis.call('SREM', WAITING, device)
  return #entries
end
"""

# KEYS: the stream, the record of the command (empty without a usable command ID) and, for a
# janitor, the heartbeat of the instance that it considers dead (else empty).
# ARGV: entry ID, command ID, device ID, instance ID in the response, time, TTL of the record (ms),
# expiry (ms since 1970; empty if unknown), text, bytes in hex, sender and time of the sending in
# the response; further ones are in MORE.
_OPERATION: Final = (
    MOVING
    + f"""\
local RESPONSES, GROUP = '{RESPONSES}', '{INGEST_GROUP}'
local stream, record, id, expiry = KEYS[1], KEYS[2], ARGV[1], ARGV[7]
local MORE = {{unpack(ARGV, 12)}}
if KEYS[3] ~= '' and redis.call('EXISTS', KEYS[3]) == 1 then return 'alive' end
local function respond(status, reason, response)
  return redis.call('XADD', RESPONSES, '*', 'command_id', ARGV[2], 'device_id', ARGV[3],
    'instance_id', ARGV[4], 'status', status, 'response', response, 'reason', reason,
    'at', ARGV[5], 'payload', ARGV[8], 'payload_hex', ARGV[9], 'sender', ARGV[10],
    'sent_at', ARGV[11])
end
local function drop()
  redis.call('XACK', stream, GROUP, id)
  redis.call('XDEL', stream, id)
  forget_deadline(stream, id)
end
local function finish(status, reason, response)
  local response_id = respond(status, reason, response)
  if record ~= '' then
    redis.call('SET', record, 'done ' .. status .. ' ' .. response_id, 'PX', ARGV[6])
  end
  drop()
end
local function doubt() finish('failed', '{Reason.IN_DOUBT}', '') end
-- pcall, because another client may have written a record that does not name an entry.
local function entry(in_stream, entry_id)
  return redis.pcall('XRANGE', in_stream, entry_id, entry_id)[1]
end

local here = entry(stream, id)
local phase, owner_stream, owner_entry
local state = 'open'
local value = record ~= '' and redis.pcall('GET', record)
if value then
  phase, owner_stream, owner_entry = tostring(value):match('^(%a+) (%S+) (%S+)$')
  local claimed = phase == 'sent' or phase == 'delivered'
  if phase == 'done' then state = 'over'
  elseif claimed and owner_stream == stream and owner_entry == id then
    state = 'ours'
  elseif claimed and entry(owner_stream, owner_entry) then
    state = 'over'  -- another entry of the command is responsible for it
  else
    state = 'doubtful'
  end
end
-- Finishes this entry if its command must not be written (again), and returns the effect;
-- 'doubted' is an 'over' with a response given here. Returns nil if work may continue.
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
local effect = ended()
if effect then return effect end
if phase == 'delivered' then doubt() return 'doubted' end
if state == 'open' then redis.call('SET', record, 'sent ' .. stream .. ' ' .. id, 'PX', ARGV[6]) end
return 'won'
"""
)

RECOVER: Final = Script(
    _OPERATION
    + """\
local effect = ended()
if effect then return effect end
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
return 'recorded'
"""
)

# MORE: status, reason, response; '1' if the command was written, else '0'. A command that
# was written gets its response even if Redis has lost its entry, for example after a flush.
FINISH: Final = Script(
    _OPERATION
    + """\
if not (state == 'open' and not here and MORE[4] == '1') then
  local effect = ended()
  if effect then return effect end
end
finish(MORE[1], MORE[2], MORE[3])
return 'finished'
"""
)

# Ends a command that has expired, unless an instance has claimed it.
EXPIRE: Final = Script(
    _OPERATION
    + """\
local effect = ended()
if not effect and state == 'open' then
  finish('expired', '', '')
  effect = 'finished'
end
if effect ~= 'finished' then forget_deadline(stream, id) end
return effect or 'known'
"""
)

# MORE: the instance that the device is not connected to (or empty); '1' if the command
# waits while its device is not connected, '0' if it fails then; '1' if this instance has certainly
# not written the command, even if it has claimed it, else '0'.
OFFER: Final = Script(
    _OPERATION
    + f"""\
local effect = ended()
if effect then return effect end
if state == 'ours' then
  if MORE[3] == '0' then doubt() return 'doubted' end
  redis.call('DEL', record)
end
if not here then return 'gone' end
local owner = owner_of(ARGV[3], MORE[1])
if not owner and MORE[2] == '0' then
  finish('failed', '{Reason.OFFLINE}', '')
  return 'finished'
end
enqueue(ARGV[3], owner, here[2], expiry)
drop()
return owner and 'moved' or 'waits'
"""
)

# MORE: '1' if the command waits while its device is not connected, '0' if it fails then;
# the fields of the command. The command does not have an entry yet.
SUBMIT: Final = Script(
    _OPERATION
    + f"""\
if state ~= 'open' then return {{'known', ''}} end
local owner = owner_of(ARGV[3], '')
if not owner and MORE[1] == '0' then
  finish('failed', '{Reason.OFFLINE}', '')
  return {{'finished', ''}}
end
enqueue(ARGV[3], owner, {{unpack(MORE, 2)}}, expiry)
return {{owner and 'moved' or 'waits', owner or ''}}
"""
)

# ARGV: the device ID.
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
