"""Tests of commands that move from one stream to another, on a real Redis."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    WAITING,
    contents,
    dump_all,
    entry_at,
    is_empty,
    outbound,
    queued_command,
    read_new,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.integration.commands.states import (
    OPERATIONS,
    STATES,
    STREAM,
    Operation,
    arrange,
    record_of,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import fields
from tracker.command import Command
from tracker.commands.ledger import CommandLedger, Effect
from tracker.keys import DEADLINES

ODD_FIELDS: Final = [
    *(b"colour", b"\x00\xff", b"command_id", b"c1", b"device_id", DEVICE.encode()),
    *(b"payload", b"first", b"payload", "zweite \N{SNOWMAN}".encode(), b"", b""),
    *(b"expires_at", b"2199-01-01T00:00:00Z", b"codec", b"14"),
]


@ensureDeferred
async def test_command_is_moved_with_all_its_fields(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one", "two")
    register_devices(redis, "two", DEVICE)
    entry_id = redis.client.execute_command("XADD", STREAM, "*", *ODD_FIELDS).decode()
    read_new(redis, STREAM)
    entry = entry_at(redis, STREAM, entry_id)
    command = Command.from_entry(entry.content or ())
    assert await ledger.offer(entry, command, waits=True) is Effect.MOVED
    assert await ledger.offer(entry, command, waits=True) is Effect.GONE
    assert is_empty(redis, STREAM)
    assert contents(redis, outbound("two")) == [ODD_FIELDS]
    assert summaries(redis) == []
    assert record_of(redis) is None


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["none", "dead", "one"])
async def test_command_for_an_unconnected_device_waits_or_fails(
    owner: str, waits: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    if owner != "none":
        register_devices(redis, owner, DEVICE)
    entry, command = queued_command(redis)
    effect = await ledger.offer(entry, command, waits)
    assert is_empty(redis, STREAM)
    assert not redis.client.exists(outbound("dead"))
    if waits:
        assert effect is Effect.WAITS
        assert contents(redis, waiting_stream()) == [entry.content]
        assert redis.client.smembers(WAITING) == [DEVICE.encode()]
        assert summaries(redis) == []
    else:
        assert effect is Effect.FINISHED
        assert summaries(redis) == [("c1", "failed", "offline")]
        assert not redis.client.exists(waiting_stream(), WAITING)
    assert await ledger.offer(entry, command, waits) is Effect.GONE


@ensureDeferred
@pytest.mark.parametrize("owner", ["none", "two"])
async def test_claim_is_returned_when_the_command_is_passed_on(
    owner: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    set_heartbeats(redis, "one", "two")
    if owner == "two":
        register_devices(redis, "two", DEVICE)
    entry, command = queued_command(redis)
    await ledger.claim(entry, command)
    effect = await ledger.offer(entry, command, waits=True, unwritten=True)
    assert effect is (Effect.MOVED if owner == "two" else Effect.WAITS)
    assert record_of(redis) is None
    assert is_empty(redis, STREAM)
    # A repeated call after the other instance has claimed the command changes nothing.
    if owner == "two":
        (moved,) = read_new(redis, outbound("two"))
        two = CommandLedger(clock, connected.connection, "two")
        assert await two.claim(moved, command) is Effect.WON
        assert await ledger.offer(entry, command, waits=True, unwritten=True) is Effect.GONE
        assert record_of(redis) == f"sent {outbound('two')} {moved.id}"


@ensureDeferred
async def test_command_with_a_returned_claim_fails_if_commands_do_not_wait(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    await ledger.claim(entry, command)
    effect = await ledger.offer(entry, command, waits=False, unwritten=True)
    assert effect is Effect.FINISHED
    assert summaries(redis) == [("c1", "failed", "offline")]
    assert (record_of(redis) or "").startswith("done failed ")


@ensureDeferred
async def test_submitted_command_goes_to_the_instance_of_its_device(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one", "two")
    register_devices(redis, "two", DEVICE)
    _, command = queued_command(redis)
    redis.client.delete(STREAM)
    assert await ledger.submit(command) == (Effect.MOVED, "two")
    ((*_, moved),) = [contents(redis, outbound("two"))]
    assert Command.from_entry(moved) == command
    # The submitting instance can be the one that the device is connected to.
    register_devices(redis, "one", DEVICE)
    assert await ledger.submit(command) == (Effect.MOVED, "one")
    assert Command.from_entry(contents(redis, STREAM)[0]) == command
    assert summaries(redis) == []
    keys = {STREAM.encode(), outbound("two").encode(), DEADLINES.encode()}
    assert set(redis.client.keys("commands:*")) == keys


@ensureDeferred
@pytest.mark.parametrize("owner", ["none", "dead"])
async def test_submitted_command_for_an_unconnected_device_waits_or_fails(
    owner: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    if owner == "dead":
        register_devices(redis, "dead", DEVICE)
    command = Command.from_entry(
        [part.encode() for pair in fields("c1", DEVICE).items() for part in pair]
    )
    assert await ledger.submit(command) == (Effect.WAITS, "")
    assert Command.from_entry(contents(redis, waiting_stream())[0]) == command
    assert redis.client.smembers(WAITING) == [DEVICE.encode()]
    assert summaries(redis) == []
    assert await ledger.submit(command, waits=False) == (Effect.FINISHED, "")
    assert summaries(redis) == [("c1", "failed", "offline")]
    assert await ledger.submit(command, waits=False) == (Effect.KNOWN, "")
    assert await ledger.submit(command) == (Effect.KNOWN, "")
    assert summaries(redis) == [("c1", "failed", "offline")]
    assert redis.client.xlen(waiting_stream()) == 1


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "open"])
async def test_submitting_a_known_command_changes_nothing(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    entry, command = queued_command(redis)
    arrange(redis, state, entry)
    before = dump_all(redis)
    assert await ledger.submit(command) == (Effect.KNOWN, "")
    assert dump_all(redis) == before


@ensureDeferred
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_janitor_cannot_take_over_entries_of_a_live_instance(
    operation: Operation, state: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, command = queued_command(redis)
    arrange(redis, state, entry)
    set_heartbeats(redis, "one")
    before = dump_all(redis)
    taking_over = CommandLedger(clock, connected.connection, "janitor", dead="one")
    assert await operation(taking_over, entry, command) is Effect.ALIVE
    assert dump_all(redis) == before
    redis.client.delete("instance:heartbeat:one")
    assert await operation(taking_over, entry, command) is not Effect.ALIVE
