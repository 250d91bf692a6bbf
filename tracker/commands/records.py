"""Read the record of a command, and find the stream that contains it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from attrs import frozen

from tracker.command import Response, Status, StatusUpdate
from tracker.commands.deviceregistry import owners
from tracker.errors import Refused
from tracker.keys import RESPONSES, command_record, outbound, waiting_commands
from tracker.log.entries import StreamEntry, exclusive_start
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping

#: Entries of a stream that are searched for a command.
_SEARCH_LIMIT: Final = 1000
#: Bytes of the longest record that is parsed.
_MAX_RECORD_BYTES: Final = 2000

# The forms of a record; see tracker.commands.ledger.
_ENTRY: Final = "[0-9]{1,20}-[0-9]{1,20}"
_CLAIMED: Final = re.compile(rf"(sent|delivered) {re.escape(outbound(''))}(\S+) ({_ENTRY})")
_DONE: Final = re.compile(rf"done ({'|'.join(Status)}) ({_ENTRY})")


@frozen
class CommandRecord:
    """The record of a command that was claimed or has ended."""

    phase: str
    """``sent``, ``delivered`` or ``done``."""
    instance_id: str = ""
    """ID of the instance that claimed the command; empty if it is done."""
    stream: str = ""
    entry_id: str = ""
    """ID of the entry whose holder owns the command; empty if it is done."""
    response: Response | None = None
    """The final response; only its status if its entry was trimmed."""

    @property
    def final(self) -> bool:
        """True if the command has a final response."""
        return self.response is not None


async def read_record(redis: RedisConnection, command_id: str) -> CommandRecord | None:
    """Return the record of a command.

    :return: None if the command was neither claimed nor ended, or if the record has expired.
    """
    try:
        value = await redis.execute("GET", command_record(command_id))
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return None  # not written by Tracker
    if value is None or len(value) > _MAX_RECORD_BYTES:
        return None
    text = value.decode(errors="replace")
    if claimed := _CLAIMED.fullmatch(text):
        return CommandRecord(claimed[1], claimed[2], outbound(claimed[2]), claimed[3])
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
    with suppress(ValueError, IndexError):  # the entry was trimmed, or is not a response
        response = Response.from_fields(mapping(reply[0][1]))
    return CommandRecord("done", response=response)


async def find_command(
    redis: RedisConnection, command_id: str, device_id: str
) -> tuple[str, StreamEntry] | None:
    """Return the instance whose stream contains a command, and the entry.

    Only the first entries of the device's streams are searched.

    :return: the instance ID is empty if the command waits for its device; None if not found.
    """
    (instance_id,) = await owners(redis, [device_id])
    streams = {"": waiting_commands(device_id)}
    if instance_id is not None:
        streams[instance_id] = outbound(instance_id)
    wanted = command_id.encode()
    for owner, stream in streams.items():
        try:
            found = await _find(redis, stream, wanted)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            continue  # the command may be in the other stream
        if found is not None:
            return owner, found
    return None


async def _find(redis: RedisConnection, stream: str, command_id: bytes) -> StreamEntry | None:
    first: str | None = "-"
    left = _SEARCH_LIMIT
    while first is not None and left > 0:
        page = await read_range(redis, stream, first, "+", count=left)
        for entry in page:
            if entry.fields.get(b"command_id") == command_id:
                return entry
        first = exclusive_start(page[-1].id) if page else None
        left -= len(page)
    return None


async def waiting_count(redis: RedisConnection, device_id: str) -> int:
    """Return the number of commands that wait for a device."""
    try:
        count: int = await redis.execute("XLEN", waiting_commands(device_id))
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return 0  # not a stream; a janitor reports the key
    return count
