"""What Redis knows of commands: where each of them waits, and what has become of it.

A command is an entry of a stream: of the instance that its device is connected to, or of
those that wait for the device. Whoever has the entry is responsible for the command, and has
it no longer once the entry is gone. ``commands:sent:{command_id}`` says that it must not be
written (again), in one of these forms:

``sent STREAM ENTRY``
    The instance that has this entry was about to write it.
``delivered STREAM ENTRY``
    It has, and has said so.
``done STATUS RESPONSE``
    The final response is that entry of ``commands:responses``.

Each step is one script, and looks at both first. So it may be repeated when its answer was
lost; two entries of one command make one final response; and an instance that was taken for
dead, and has lost an entry to the janitor, learns of it before it writes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import Deferred

from tracker.command import MOST_FIELDS, Command, Outcome, Reason, Status
from tracker.keys import (
    CONNECTIONS,
    INGEST_GROUP,
    RESPONSES,
    WAITING,
    fate,
    heartbeat,
    outbound,
    waiting_commands,
)
from tracker.log.entries import Delivered
from tracker.log.redis.ranges import read_range
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script

#: Milliseconds for which it is remembered what has become of a command, at least.
REMEMBERED_MS: Final = 86_400_000
#: Entries that are read at once.
_PAGE: Final = 100

#: Where commands are put, for scripts that move some. A registry entry counts only while its
#: instance lives, and never the one that has just said that the device is not there. Of what
#: is no command anyhow no more goes along than shows that, since Lua could not pass it on.
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
  -- Of what is no command for its many fields just enough to show that; unpack has a limit.
  local most = math.min(#fields, {2 * MOST_FIELDS + 2})
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

# KEYS: the stream, the fate (or empty, where there is no usable command id) and, for a
# janitor, the heartbeat of an instance that it takes for dead (or empty). ARGV: the entry,
# command id, device, who says so, when, how long it is remembered (ms).
_STEP: Final = (
    MOVING
    + f"""\
local RESPONSES, GROUP = '{RESPONSES}', '{INGEST_GROUP}'
local stream, fate, id = KEYS[1], KEYS[2], ARGV[1]
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
  if fate ~= '' then
    redis.call('SET', fate, 'done ' .. status .. ' ' .. answer, 'PX', ARGV[6])
  end
  drop()
end
local function doubt() finish('failed', '{Reason.IN_DOUBT}', '') end
-- Whoever has written something else into the fate may have named what is no entry at all.
local function entry(where, which) return redis.pcall('XRANGE', where, which, which)[1] end

local here = entry(stream, id)
local phase, where, which
local state = 'open'
local value = fate ~= '' and redis.pcall('GET', fate)
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
-- Ends what must not be begun, or not again, and says how it ended: 'doubted' is 'over', too.
local function ended()
  if not here and state ~= 'ours' then return 'gone' end
  if state == 'over' then drop() return 'over' end
  if state == 'doubtful' then doubt() return 'doubted' end
end
"""
)

_CLAIM: Final = Script(
    _STEP
    + """\
local how = ended()
if how then return how end
if phase == 'delivered' then doubt() return 'doubted' end
if state == 'open' then redis.call('SET', fate, 'sent ' .. stream .. ' ' .. id, 'PX', ARGV[6]) end
return 'won'
"""
)

_RECOVER: Final = Script(
    _STEP
    + """\
local how = ended()
if how then return how end
if state == 'ours' then doubt() return 'doubted' end
return 'open'
"""
)

_DELIVERED: Final = Script(
    _STEP
    + """\
if phase == 'sent' and state == 'ours' then
  respond('delivered', '', '')
  redis.call('SET', fate, 'delivered ' .. stream .. ' ' .. id, 'KEEPTTL')
end
return 'said'
"""
)

# ARGV, too: status, reason, response, and whether it was written ('1') or not ('0'). What
# was written and is in Redis no more, as after a flush, gets its response all the same.
_FINISH: Final = Script(
    _STEP
    + """\
if not (state == 'open' and not here and ARGV[10] == '1') then
  local how = ended()
  if how then return how end
end
finish(ARGV[7], ARGV[8], ARGV[9])
return 'finished'
"""
)

# ARGV, too: the instance that the device is not connected to (or empty), whether it waits
# ('1') or fails ('0') when it is nowhere, and whether whoever says this has not written it
# though it may have been about to ('1'), or does not know ('0').
_OFFER: Final = Script(
    _STEP
    + f"""\
local how = ended()
if how then return how end
if state == 'ours' then
  if ARGV[9] == '0' then doubt() return 'doubted' end
  redis.call('DEL', fate)
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

# ARGV, too: whether it waits ('1') or fails ('0') when its device is nowhere; the fields. Its
# own stream is none.
_SUBMIT: Final = Script(
    _STEP
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
_REVIEW_WAITING: Final = Script(
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
_REMOVE_EMPTY: Final = Script("""\
if redis.call('EXISTS', KEYS[2]) == 1 or redis.call('XLEN', KEYS[1]) > 0 then return 0 end
return redis.call('DEL', KEYS[1])
""")


class Step(Enum):
    """What a step has come to."""

    WON = "won"
    """Whoever asked may write it, and nobody else."""
    OPEN = "open"
    """Nobody has begun with it."""
    FINISHED = "finished"
    """There is a final response now."""
    MOVED = "moved"
    """It is in the stream of the instance that its device is connected to."""
    WAITS = "waits"
    """It waits for its device."""
    OVER = "over"
    """It has its final response, or another entry that will bring it one."""
    GONE = "gone"
    """The entry is not there: somebody else has taken it over."""
    LIVES = "lives"
    """The instance that was taken for dead is not."""
    KNOWN = "known"
    """It was begun with, or has ended, before."""
    SAID = "said"


class CommandLedger:
    """Takes steps with commands, in the name of one instance.

    Each raises ``Refused`` or ``Unavailable`` as any command of Redis, and may be repeated then.

    :param who: the instance (or janitor) that responses name.
    :param dead: name of an instance; its entries are taken over unless it lives after all.
    """

    def __init__(self, clock: Any, redis: RedisConnection, who: str, dead: str = "") -> None:
        self.responses: Counter[tuple[str, str]] = Counter()
        """Status and reason → responses that were given in these steps."""
        self._clock = clock
        self._redis = redis
        self._who = who
        self._instance = dead or who
        self._heartbeat = heartbeat(dead) if dead else ""

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self._clock.seconds() * 1000)

    async def claim(self, entry: Delivered, command: Command) -> Step:
        """Become the one who may write the command: WON, else OVER or GONE."""
        return await self._take(_CLAIM, entry, command)

    async def recover(self, entry: Delivered, command: Command) -> Step:
        """See to an entry that was taken before a crash: OPEN, else OVER or GONE.

        If it was about to be written, nobody knows whether it was: it is ``in_doubt`` now.
        """
        return await self._take(_RECOVER, entry, command)

    async def delivered(self, entry: Delivered, command: Command) -> None:
        """Say that a command was written that was won before."""
        await self._take(_DELIVERED, entry, command)
        self.responses[Status.DELIVERED, ""] += 1

    async def finish(
        self, entry: Delivered, command: Command, outcome: Outcome, written: bool = False
    ) -> Step:
        """Give the final response: FINISHED, else OVER or GONE."""
        told = (*_told(outcome), int(written))
        return self._counted(await self._take(_FINISH, entry, command, *told), outcome)

    async def refuse(
        self, entry: Delivered, command_id: str, device_id: str, outcome: Outcome
    ) -> Step:
        """The same for what is no command: with what it says of itself, usable or not."""
        usable = fate(command_id) if command_id else ""
        about = (command_id, device_id, REMEMBERED_MS)
        answer = await self._run(_FINISH, entry, usable, about, *_told(outcome), 0)
        return self._counted(self._step(answer), outcome)

    async def offer(
        self, entry: Delivered, command: Command, waits: bool, unwritten: bool = False
    ) -> Step:
        """Pass a command on whose device is not connected to this instance.

        :param waits: whether it waits if its device is nowhere; else it fails.
        :param unwritten: whether it is sure that this instance has not written it, though it
            had won the claim.
        :return: MOVED, WAITS or FINISHED, else OVER or GONE.
        """
        where = (self._instance, int(waits), int(unwritten))
        step = await self._take(_OFFER, entry, command, *where)
        return self._counted(step, Outcome.failed(Reason.OFFLINE))

    async def submit(self, command: Command, waits: bool = True) -> tuple[Step, str]:
        """Put a new command where its device is: MOVED with the instance, WAITS or FINISHED.

        KNOWN when it was begun with before. One that is still on its way is put there once
        more, which does no harm.
        """
        nowhere = Delivered("", "0-0", None)
        about = (command.command_id, command.device_id, self._remembered(command))
        answer = await self._run(
            _SUBMIT, nowhere, fate(command.command_id), about, int(waits), *command.to_fields()
        )
        step, instance = (part.decode() for part in answer)
        return Step(step), instance

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires when a step can be taken, or fails with Unavailable."""
        return self._redis.when_connected()

    async def entry(self, stream: str, entry_id: str) -> Delivered:
        """Read one entry of a stream; without content if it is not there."""
        reply = await self._redis.execute("XRANGE", stream, entry_id, entry_id)
        return Delivered(stream, entry_id, reply[0][1] if reply else None)

    async def drop(self, entry: Delivered) -> None:
        """Forget an entry that somebody has deleted."""
        # In this order: what is pending is found again, what is only in the stream is not.
        await self._redis.execute("XDEL", entry.stream, entry.id)
        await self._redis.execute("XACK", entry.stream, INGEST_GROUP, entry.id)

    def _remembered(self, command: Command) -> int:
        # Until no second entry of it could be written any more, and a day.
        return max(0, command.expires_at - self.now) + REMEMBERED_MS

    async def _take(
        self, script: Script, entry: Delivered, command: Command, *more: str | int
    ) -> Step:
        about = (command.command_id, command.device_id, self._remembered(command))
        return self._step(await self._run(script, entry, fate(command.command_id), about, *more))

    def _step(self, answer: bytes) -> Step:
        if answer == b"doubted":
            self.responses[Status.FAILED, Reason.IN_DOUBT] += 1
            return Step.OVER
        return Step(answer.decode())

    def _counted(self, step: Step, outcome: Outcome) -> Step:
        if step is Step.FINISHED:
            self.responses[outcome.status, outcome.reason] += 1
        return step

    async def _run(
        self,
        script: Script,
        entry: Delivered,
        fate_key: str,
        about: tuple[str, str, int],
        *more: str | int,
    ) -> Any:
        command_id, device_id, remembered = about
        return await script.run(
            self._redis,
            [entry.stream, fate_key, self._heartbeat],
            *(entry.id, command_id, device_id, self._who),
            *(iso_milliseconds(self.now), remembered),
            *more,
        )


async def outbound_entries(
    redis: RedisConnection, stream: str, first: str = "-"
) -> list[Delivered]:
    """Return a page of a stream of commands, pending entries included.

    :param first: start of the page; see :func:`tracker.log.entries.behind`.
    """
    return await read_range(redis, stream, first, "+", _PAGE)


async def outbound_streams(redis: RedisConnection) -> AsyncIterator[str]:
    """Yield the ids of instances that have a stream of commands.

    Bytes that are not UTF-8 are escaped: such an id can be shown, but not looked up.
    """
    async for instance_id in raw_outbound_streams(redis):
        yield instance_id.decode(errors="backslashreplace")


async def raw_outbound_streams(redis: RedisConnection) -> AsyncIterator[bytes]:
    """Yield the ids of instances that have a stream of commands, as raw bytes."""
    prefix = outbound("").encode()
    cursor = b"0"
    while True:
        cursor, keys = await redis.execute(
            "SCAN", cursor, "MATCH", prefix + b"*", "COUNT", 1000, "TYPE", "stream"
        )
        for key in keys:
            yield key.removeprefix(prefix)
        if cursor == b"0":
            return


async def remove_empty_outbound(redis: RedisConnection, instance_id: str) -> bool:
    """Remove the stream, with its group, of an instance that is gone, if nothing is in it."""
    removed = await _REMOVE_EMPTY.run(redis, [outbound(instance_id), heartbeat(instance_id)])
    return bool(removed)


async def waiting_devices(redis: RedisConnection) -> AsyncIterator[str]:
    """Yield the devices for which commands wait.

    Bytes that are not UTF-8 are escaped: such an id can be shown, but not looked up.
    """
    async for device_id in raw_waiting_devices(redis):
        yield device_id.decode(errors="backslashreplace")


async def raw_waiting_devices(redis: RedisConnection) -> AsyncIterator[bytes]:
    """Yield the devices for which commands wait, as raw bytes."""
    cursor = b"0"
    while True:
        cursor, devices = await redis.execute("SSCAN", WAITING, cursor, "COUNT", 1000)
        for device in devices:
            yield device
        if cursor == b"0":
            return


async def forget_waiting(redis: RedisConnection, device: bytes) -> bool:
    """Remove a member that is not a device id from the set of devices with waiting commands.

    A stream of that name is not touched.

    :return: whether it was in the set.
    """
    return bool(await redis.execute("SREM", WAITING, device))


async def review_waiting(redis: RedisConnection, device_id: str) -> tuple[int, list[Delivered]]:
    """Move what waits for a device to where it is, if it is connected after all.

    :return: the number of commands that were moved, and the first of those that still wait.
    """
    moved = await _REVIEW_WAITING.run(redis, [], device_id)
    return moved, await waiting_entries(redis, device_id)


async def waiting_entries(
    redis: RedisConnection, device_id: str, first: str = "-"
) -> list[Delivered]:
    """Return some of the commands that wait for a device, oldest first.

    :param first: ID of the first entry; ``(ID`` excludes the entry ID.
    """
    return await read_range(redis, waiting_commands(device_id), first, "+", _PAGE)


def _told(outcome: Outcome) -> tuple[str, str, str]:
    return outcome.status.value, outcome.reason, outcome.response
