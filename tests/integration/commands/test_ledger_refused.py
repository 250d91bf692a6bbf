"""Steps with a command that Redis refuses, or that end half-way, on a real server."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.endings import (
    STREAM,
    Act,
    arrange,
    claim,
    finish_unwritten,
    finish_written,
    offer,
    record_of,
    recover,
    refuse,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    connect,
    given,
    is_empty,
    live,
    raw,
    snapshot,
    waiting,
)
from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tracker.command import Command
from tracker.commands.ledger import CommandLedger, Effect
from tracker.errors import Refused
from tracker.log.entries import Delivered


async def delivered(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    await ledger.delivered(entry, command)
    return Effect.RECORDED


async def submit(ledger: CommandLedger, entry: Delivered, command: Command) -> Effect:
    step, _ = await ledger.submit(command)
    return step


@ensureDeferred
@pytest.mark.parametrize(
    ("act", "state"),
    [
        (claim, "open"),
        (claim, "vanished"),
        (recover, "sent"),
        (delivered, "sent"),
        (finish_unwritten, "open"),
        (finish_unwritten, "sent"),
        (finish_written, "delivered"),
        (refuse, "open"),
        (offer, "open"),
        (offer, "sent"),
        (submit, "open"),
    ],
)
@pytest.mark.parametrize("owner", ["two", "nobody"])
async def test_out_of_memory_a_step_is_refused_as_a_whole(
    owner: str, act: Act, state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    if owner == "two":
        connect(redis, "two", DEVICE)
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    redis.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        await act(ledger, entry, command)
    assert snapshot(redis) == before
    redis.client.config_set("maxmemory", 0)
    step = await act(ledger, entry, command)
    assert step in {
        Effect.WON,
        Effect.OVER,
        Effect.RECORDED,
        Effect.FINISHED,
        Effect.MOVED,
        Effect.WAITS,
    }
    assert snapshot(redis) != before


@ensureDeferred
async def test_out_of_memory_a_claim_is_given_back_whole_or_not_at_all(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    before = snapshot(redis)
    redis.client.config_set("maxmemory", 1)
    try:
        step = await ledger.offer(entry, command, waits=True, unwritten=True)
    except Refused:
        assert snapshot(redis) == before
    else:
        assert step is Effect.WAITS
        assert record_of(redis) is None
        assert raw(redis, waiting()) == [entry.content]
        assert is_empty(redis, STREAM)


@ensureDeferred
async def test_out_of_memory_duplicates_still_go(ledger: CommandLedger, redis: RedisServer) -> None:
    entry, command = given(redis)
    arrange(redis, "done", entry)
    redis.client.config_set("maxmemory", 1)
    assert await ledger.claim(entry, command) is Effect.OVER
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("before", ["XACK", "XDEL"])
async def test_a_second_entry_that_is_half_dropped_is_found_again(
    before: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, _ = given(redis)

    def refuse(command: str, *_: Any) -> None:
        if command == before:
            raise Refused("ERR not now")

    halting: Any = Intercepted(connected.connection, refuse)
    with pytest.raises(Refused):
        await CommandLedger(clock, halting, "one").drop(entry)
    # What this consumer has not finished is all that it reads again.
    pending = redis.client.xpending_range(STREAM, "ingest", "-", "+", 10)
    assert [one["message_id"].decode() for one in pending] == [entry.id]
    await CommandLedger(clock, connected.connection, "one").drop(entry)
    assert is_empty(redis, STREAM)
