"""Read the record of a command, and find the stream that holds it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from attrs import frozen

from tracker.command import Response, Status, StatusUpdate
from tracker.commands.deviceregistry import owners
from tracker.errors import Refused
from tracker.keys import RESPONSES, command_record, outbound, waiting_commands
from tracker.log.entries import behind
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping

#: Entries of a stream among which a command is looked for.
_SEARCH_LIMIT: Final = 1000
#: Bytes of a record that are parsed.
_MAX_RECORD_BYTES: Final = 2000

#: The forms of a record; see :mod:`tracker.commands.ledger`.
_ENTRY: Final = "[0-9]{1,20}-[0-9]{1,20}"
_BEGUN: Final = re.compile(rf"(sent|delivered) {re.escape(outbound(''))}(\S+) ({_ENTRY})")
_DONE: Final = re.compile(rf"done ({'|'.join(Status)}) ({_ENTRY})")


@frozen
class CommandRecord:
    """The record of a command that must not be written (again)."""

    phase: str
    """``sent``, ``delivered`` or ``done``."""
    instance_id: str = ""
    """The instance that has begun with it, unless it is done."""
    stream: str = ""
    entry_id: str = ""
    """The entry whose holder owns the command, unless it is done."""
    response: Response | None = None
    """The final response; only its status if the entry was trimmed off the stream."""

    @property
    def final(self) -> bool:
        """True if the command has ended."""
        return self.response is not None


async def read_record(redis: RedisConnection, command_id: str) -> CommandRecord | None:
    """Return the record of a command; None before an instance begins with it, or long after."""
    try:
        value = await redis.execute("GET", command_record(command_id))
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return None  # not written by Tracker
    if value is None or len(value) > _MAX_RECORD_BYTES:
        return None
    text = value.decode(errors="replace")
    if begun := _BEGUN.fullmatch(text):
        return CommandRecord(begun[1], begun[2], outbound(begun[2]), begun[3])
    done = _DONE.fullmatch(text)
    if done is None:
        return None  # not written by Tracker
    status, entry_id = done[1], done[2]
    response = Response(command_id, "", "", StatusUpdate(Status(status)), "")
    try:
        reply = await redis.execute("XRANGE", RESPONSES, entry_id, entry_id)
    except Refused as error:
        if not is_wrong_type(error) and "Invalid stream ID" not in str(error):
            raise
        reply = []
    with suppress(ValueError, IndexError):  # it was trimmed, or is not a response
        response = Response.from_fields(mapping(reply[0][1]))
    return CommandRecord("done", response=response)


async def find_command(redis: RedisConnection, command_id: str, device_id: str) -> str | None:
    """Return the instance in whose stream a command is; empty if it waits; None if not found.

    Only the first entries of the streams for its device are read.
    """
    (instance_id,) = await owners(redis, [device_id])
    places = {"": waiting_commands(device_id)}
    if instance_id is not None:
        places[instance_id] = outbound(instance_id)
    wanted = command_id.encode()
    for place, stream in places.items():
        try:
            found = await _holds(redis, stream, wanted)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            continue  # the command may be in the other stream
        if found:
            return place
    return None


async def _holds(redis: RedisConnection, stream: str, command_id: bytes) -> bool:
    """Return True if a command is among the first entries of a stream."""
    first: str | None = "-"
    left = _SEARCH_LIMIT
    while first is not None and left > 0:
        page = await read_range(redis, stream, first, "+", count=left)
        if any(entry.fields.get(b"command_id") == command_id for entry in page):
            return True
        first = behind(page[-1].id) if page else None
        left -= len(page)
    return False


async def waiting_count(redis: RedisConnection, device_id: str) -> int:
    """Return the number of commands that wait for a device."""
    try:
        count: int = await redis.execute("XLEN", waiting_commands(device_id))
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return 0  # not a stream; a janitor reports the key
    return count
