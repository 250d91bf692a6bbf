"""What Redis may hold of a command, and how a test arranges it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    outbound,
    put,
    sent,
)
from tests.servers import RedisServer
from tests.system.commands import fields
from tracker.command import EXPIRED, Command, Reason, Status, StatusUpdate
from tracker.commands.ledger import CommandLedger, Effect
from tracker.log.entries import Delivered

DAY_MS: Final = 86_400_000

STREAM: Final = outbound("one")

ANSWERED: Final = StatusUpdate(Status.RESPONDED, response="INI:2026/1/1")

DOUBT: Final = ("c1", "failed", "in_doubt")

RESPONDED: Final = ("c1", "responded", "")

Act = Callable[[CommandLedger, Delivered, Command], Awaitable[Any]]


def record_of(redis: RedisServer, command_id: str = "c1") -> str | None:
    value: bytes | None = redis.client.get(sent(command_id))
    return None if value is None else value.decode()


def remembered(redis: RedisServer, clock: Clock, command: Command) -> bool:
    """Whether its record_of is, until a day after nobody could write it any more."""
    left = redis.client.pttl(sent(command.command_id))
    until_expiry = command.expires_at - clock.seconds() * 1000
    return bool(left > DAY_MS - 20_000 and left > until_expiry + DAY_MS - 20_000)


# What may be in the key, by what it means for the entry at hand.
STATES: Final = (
    *("open", "sent", "delivered", "done", "other", "vanished"),
    *("foreign", "empty", "odd", "of another type"),
)

OURS: Final = ("sent", "delivered")

DOUBTFUL: Final = ("vanished", "foreign", "empty", "odd", "of another type")


def arrange(redis: RedisServer, state: str, entry: Delivered) -> None:
    key = sent("c1")
    match state:
        case "sent" | "delivered":
            redis.client.set(key, f"{state} {entry.stream} {entry.id}", px=DAY_MS)
        case "done":
            redis.client.set(key, "done responded 1-1", px=DAY_MS)
        case "other":
            second = put(redis, outbound("two"), fields("c1", DEVICE))
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


async def claim(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.claim(entry, command)


async def recover(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.recover(entry, command)


async def finish_unwritten(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.finish(entry, command, EXPIRED)


async def finish_written(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.finish(entry, command, ANSWERED, written=True)


async def refuse(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    update = StatusUpdate.failed(Reason.MALFORMED, "no such thing")
    return await ledger.refuse(entry, command.command_id, command.device_id, update)


async def offer(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.offer(entry, command, waits=True)


async def offer_unwritten(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    return await ledger.offer(entry, command, waits=True, unwritten=True)


ACTS: Final = (
    *(claim, recover, finish_unwritten, finish_written),
    *(refuse, offer, offer_unwritten),
)

#: Where nobody has begun: the step, and the response.
EXPECTED: Final[dict[Act, tuple[Effect, tuple[str, str, str] | None]]] = {
    recover: (Effect.OPEN, None),
    finish_unwritten: (Effect.FINISHED, ("c1", "expired", "")),
    finish_written: (Effect.FINISHED, RESPONDED),
    refuse: (Effect.FINISHED, ("c1", "failed", "malformed")),
    claim: (Effect.WON, None),
    offer: (Effect.WAITS, None),
    offer_unwritten: (Effect.WAITS, None),
}


def expected(act: Act, state: str, here: bool) -> tuple[Effect, tuple[str, str, str] | None]:
    """What a step comes to, and which response it makes."""
    if state in OURS:
        # Whoever has claimed it brings it to its end, whatever has become of the entry.
        if act is recover or act is offer or (act is claim and state == "delivered"):
            return Effect.OVER, DOUBT
        if act is offer_unwritten and not here:
            return Effect.GONE, None
        return EXPECTED[act]
    if not here:
        if act is finish_written and state == "open":
            return EXPECTED[act]
        return Effect.GONE, None
    if state == "open":
        return EXPECTED[act]
    return Effect.OVER, DOUBT if state in DOUBTFUL else None
