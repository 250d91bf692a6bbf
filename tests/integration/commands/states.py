"""States of a command's record in Redis, and the effect of each operation in each state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    append_entry,
    outbound,
    record_key,
)
from tests.servers import RedisServer
from tests.system.commands import fields
from tracker.command import EXPIRED, Command, Reason, Status, StatusUpdate
from tracker.commands.ledger import CommandLedger, Effect
from tracker.log.entries import StreamEntry

DAY_MS: Final = 86_400_000

STREAM: Final = outbound("one")

ANSWERED: Final = StatusUpdate(Status.RESPONDED, response="INI:2026/1/1")

IN_DOUBT: Final = ("c1", "failed", "in_doubt")

RESPONDED: Final = ("c1", "responded", "")

Operation = Callable[[CommandLedger, StreamEntry, Command], Awaitable[Any]]


def record_of(redis: RedisServer, command_id: str = "c1") -> str | None:
    value: bytes | None = redis.client.get(record_key(command_id))
    return None if value is None else value.decode()


def outlives_command(redis: RedisServer, clock: Clock, command: Command) -> bool:
    """Return True if the record expires at least a day after the command."""
    left = redis.client.pttl(record_key(command.command_id))
    until_expiry = command.expires_at - clock.seconds() * 1000
    return bool(left > DAY_MS - 20_000 and left > until_expiry + DAY_MS - 20_000)


# Content of the record, seen from the entry under test.
STATES: Final = (
    *("open", "sent", "delivered", "done", "other", "vanished"),
    *("foreign", "empty", "odd", "of another type"),
)

OURS: Final = ("sent", "delivered")

DOUBTFUL: Final = ("vanished", "foreign", "empty", "odd", "of another type")


def arrange(redis: RedisServer, state: str, entry: StreamEntry) -> None:
    key = record_key("c1")
    match state:
        case "sent" | "delivered":
            redis.client.set(key, f"{state} {entry.stream} {entry.id}", px=DAY_MS)
        case "done":
            redis.client.set(key, "done responded 1-1", px=DAY_MS)
        case "other":
            second = append_entry(redis, outbound("two"), fields("c1", DEVICE))
            redis.client.set(key, f"sent {second.stream} {second.id}", px=DAY_MS)
        case "vanished":
            redis.client.set(key, f"sent {outbound('two')} 1-1", px=DAY_MS)
        case "foreign":
            redis.client.set(key, "1")
        case "empty":
            redis.client.set(key, "")
        case "odd":
            redis.client.set(key, "sent nowhere nothing")
        case "of another type":
            redis.client.hset(key, "a", "b")


async def claim(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.claim(entry, command)


async def recover(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.recover(entry, command)


async def finish_unwritten(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.finish(entry, command, EXPIRED)


async def finish_written(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.finish(entry, command, ANSWERED, written=True)


async def refuse(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    update = StatusUpdate.failed(Reason.MALFORMED, "no such thing")
    return await ledger.refuse(entry, command.command_id, command.device_id, update)


async def offer(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.offer(entry, command, waits=True)


async def offer_unwritten(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.offer(entry, command, waits=True, unwritten=True)


async def expire(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    return await ledger.expire(entry, command)


OPERATIONS: Final = (
    *(claim, recover, finish_unwritten, finish_written),
    *(refuse, offer, offer_unwritten, expire),
)

#: Operation → effect and response if the command was not claimed before.
EXPECTED: Final[dict[Operation, tuple[Effect, tuple[str, str, str] | None]]] = {
    recover: (Effect.OPEN, None),
    finish_unwritten: (Effect.FINISHED, ("c1", "expired", "")),
    finish_written: (Effect.FINISHED, RESPONDED),
    refuse: (Effect.FINISHED, ("c1", "failed", "malformed")),
    claim: (Effect.WON, None),
    offer: (Effect.WAITS, None),
    offer_unwritten: (Effect.WAITS, None),
    expire: (Effect.FINISHED, ("c1", "expired", "")),
}


def expected(
    operation: Operation, state: str, here: bool
) -> tuple[Effect, tuple[str, str, str] | None]:
    """Return the effect of an operation, and the response that it gives.

    :param here: True if the entry exists.
    """
    if state in OURS:
        # The claiming instance can end the command even if its entry was deleted.
        if (
            operation is recover
            or operation is offer
            or (operation is claim and state == "delivered")
        ):
            return Effect.OVER, IN_DOUBT
        if operation is offer_unwritten and not here:
            return Effect.GONE, None
        if operation is expire:
            return Effect.KNOWN, None
        return EXPECTED[operation]
    if not here:
        if operation is finish_written and state == "open":
            return EXPECTED[operation]
        return Effect.GONE, None
    if state == "open":
        return EXPECTED[operation]
    return Effect.OVER, IN_DOUBT if state in DOUBTFUL else None
