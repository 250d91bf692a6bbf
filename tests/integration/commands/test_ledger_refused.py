"""Tests of operations of the ledger that Redis refuses or that are interrupted."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    contents,
    dump_all,
    is_empty,
    queued_command,
    register_devices,
    set_heartbeats,
    waiting_stream,
)
from tests.integration.commands.states import (
    STREAM,
    Operation,
    arrange,
    claim,
    finish_unwritten,
    finish_written,
    offer,
    record_of,
    recover,
    refuse,
)
from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tracker.command import Command
from tracker.commands.ledger import CommandLedger, Effect
from tracker.errors import Refused
from tracker.log.entries import StreamEntry


async def delivered(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    await ledger.delivered(entry, command)
    return Effect.RECORDED


async def submit(ledger: CommandLedger, entry: StreamEntry, command: Command) -> Effect:
    effect, _ = await ledger.submit(command)
    return effect


@ensureDeferred
@pytest.mark.parametrize(
    ("operation", "state"),
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
@pytest.mark.parametrize("owner", ["two", "none"])
async def test_refused_operation_changes_nothing_when_out_of_memory(
    owner: str, operation: Operation, state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one", "two")
    if owner == "two":
        register_devices(redis, "two", DEVICE)
    entry, command = queued_command(redis)
    arrange(redis, state, entry)
    before = dump_all(redis)
    redis.client.config_set("maxmemory", 1)
    with pytest.raises(Refused, match="OOM"):
        await operation(ledger, entry, command)
    assert dump_all(redis) == before
    redis.client.config_set("maxmemory", 0)
    effect = await operation(ledger, entry, command)
    assert effect in {
        Effect.WON,
        Effect.OVER,
        Effect.RECORDED,
        Effect.FINISHED,
        Effect.MOVED,
        Effect.WAITS,
    }
    assert dump_all(redis) != before


@ensureDeferred
async def test_claim_is_returned_completely_or_not_at_all_when_out_of_memory(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    await ledger.claim(entry, command)
    before = dump_all(redis)
    redis.client.config_set("maxmemory", 1)
    try:
        effect = await ledger.offer(entry, command, waits=True, unwritten=True)
    except Refused:
        assert dump_all(redis) == before
    else:
        assert effect is Effect.WAITS
        assert record_of(redis) is None
        assert contents(redis, waiting_stream()) == [entry.content]
        assert is_empty(redis, STREAM)


@ensureDeferred
async def test_entry_of_an_ended_command_is_dropped_when_out_of_memory(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    arrange(redis, "done", entry)
    redis.client.config_set("maxmemory", 1)
    assert await ledger.claim(entry, command) is Effect.OVER
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("before", ["XACK", "XDEL"])
async def test_partly_dropped_entry_stays_pending(
    before: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, _ = queued_command(redis)

    def refuse(command: str, *_: Any) -> None:
        if command == before:
            raise Refused("ERR not now")

    halting: Any = Intercepted(connected.connection, refuse)
    with pytest.raises(Refused):
        await CommandLedger(clock, halting, "one").drop(entry)
    # A consumer reads only its pending entries again.
    pending = redis.client.xpending_range(STREAM, "ingest", "-", "+", 10)
    assert [one["message_id"].decode() for one in pending] == [entry.id]
    await CommandLedger(clock, connected.connection, "one").drop(entry)
    assert is_empty(redis, STREAM)
