"""The index of deadlines: the commands that no instance has claimed, by the time of their expiry.

The scripts that enqueue and end commands maintain it, and each instance adds the entries that other
programs have appended to its stream. It only speeds up the expiry: an entry that is missing, for
example one that an instance of an earlier version has enqueued, is found by the janitor's rounds.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.internet.defer import Deferred, FirstError, gatherResults

from tracker.command import BadCommand, Command
from tracker.commands.ledger import CommandLedger, Effect
from tracker.errors import Refused
from tracker.keys import DEADLINES, outbound, waiting_commands
from tracker.redis.connection import RedisConnection

#: Milliseconds after their expiry at which commands are looked for. An instance that holds a
#: command ends it on time; the clocks of two machines may differ by as much.
GRACE_MS: Final = 500
#: Members of the index of one read.
PAGE: Final = 100
#: Maximum number of reads of one look; the next look finds the others.
MAX_PAGES: Final = 20
#: Entries that are read at the same time.
_CONCURRENCY: Final = 10

_MEMBER: Final = re.compile(
    rf"((?:{re.escape(outbound(''))}|{re.escape(waiting_commands(''))})\S{{1,1000}})"
    r" ([0-9]{1,20}-[0-9]{1,20})"
)


async def end_expired(redis: RedisConnection, ledger: CommandLedger) -> int:
    """End the indexed commands that have expired, unless their instances have claimed them.

    Any number of processes may do so at the same time.

    :return: the number of commands that were ended.
    :raises Refused: if the index cannot be read, or if Redis refuses to change it.
    :raises Unavailable: if Redis is down.
    """
    ended = 0
    for _ in range(MAX_PAGES):
        latest = ledger.now - GRACE_MS
        due = await redis.execute(
            "ZRANGEBYSCORE", DEADLINES, "-inf", latest, "LIMIT", 0, PAGE
        )  # each of them leaves this range
        for start in range(0, len(due), _CONCURRENCY):
            ending = [
                Deferred.fromCoroutine(_end(redis, ledger, member))
                for member in due[start : start + _CONCURRENCY]
            ]
            try:
                ended += sum(await gatherResults(ending, consumeErrors=True))
            except FirstError as error:
                error.subFailure.raiseException()
        if len(due) < PAGE:
            break
    return ended


async def _end(redis: RedisConnection, ledger: CommandLedger, member: bytes) -> bool:
    """End the command of a member, or remove the member; return True if the command was ended."""
    matched = _MEMBER.fullmatch(member.decode(errors="replace"))
    if matched is not None:
        try:
            entry = await ledger.entry(matched[1], matched[2])
            command = Command.from_entry(entry.content or ())
            if ledger.now >= command.expires_at:
                return await ledger.expire(entry, command) is Effect.FINISHED
            await redis.execute("ZADD", DEADLINES, command.expires_at, member)
        except (BadCommand, Refused):
            pass  # deleted or malformed: the janitor's rounds report what is wrong
        else:
            return False
    await redis.execute("ZREM", DEADLINES, member)
    return False
