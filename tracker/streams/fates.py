"""What has become of a command, and where it is, for those who ask."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from tracker.command import Outcome, Response, Status
from tracker.keys import RESPONSES, fate, outbound, waiting_commands
from tracker.streams.connection import RedisConnection
from tracker.streams.groups import Delivered
from tracker.streams.registry import owners

#: Entries of a stream among which a command is looked for.
_SEARCHED: Final = 1000


@frozen
class Fate:
    """What the fate key of a command says."""

    phase: str
    """``sent``, ``delivered`` or ``done``."""
    instance_id: str = ""
    """Where it was sent from."""
    response: Response | None = None
    """The final one; of one that was trimmed off the stream, no more than its status."""

    @property
    def final(self) -> bool:
        """Whether the command has come to its end."""
        return self.response is not None


async def command_fate(redis: RedisConnection, command_id: str) -> Fate | None:
    """What has become of a command; None as long as nobody has begun with it, or long after."""
    value = await redis.execute("GET", fate(command_id))
    if value is None:
        return None
    phase, *rest = value.decode(errors="replace").split(" ")
    if phase != "done" or len(rest) != 2:
        stream = rest[0] if rest else ""
        return Fate(phase, stream.removeprefix(outbound("")))
    status, entry_id = rest
    reply = await redis.execute("XRANGE", RESPONSES, entry_id, entry_id)
    if reply:
        content = reply[0][1]
        return Fate(
            phase, "", Response.from_fields(dict(zip(content[::2], content[1::2], strict=True)))
        )
    return Fate(phase, response=Response(command_id, "", "", Outcome(Status(status)), ""))


async def find_command(redis: RedisConnection, command_id: str, device_id: str) -> str | None:
    """The instance in whose stream a command is; empty if it waits; None if it is not found.

    It is looked for where commands for its device are, among the first ones.
    """
    (instance_id,) = await owners(redis, [device_id])
    places = {"": waiting_commands(device_id)}
    if instance_id is not None:
        places[instance_id] = outbound(instance_id)
    wanted = command_id.encode()
    for place, stream in places.items():
        reply = await redis.execute("XRANGE", stream, "-", "+", "COUNT", _SEARCHED)
        if any(Delivered(stream, *entry).fields.get(b"command_id") == wanted for entry in reply):
            return place
    return None


async def waiting_count(redis: RedisConnection, device_id: str) -> int:
    """How many commands wait for a device."""
    count: int = await redis.execute("XLEN", waiting_commands(device_id))
    return count
