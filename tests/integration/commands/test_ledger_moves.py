"""Commands that go from one stream to another, on a real server."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.endings import (
    ACTS,
    STATES,
    STREAM,
    Act,
    arrange,
    record_of,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    WAITING,
    connect,
    found,
    given,
    is_empty,
    live,
    outbound,
    raw,
    read,
    said,
    snapshot,
    waiting,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import fields
from tracker.command import Command
from tracker.commands.ledger import CommandLedger, Effect

ODD_FIELDS: Final = [
    *(b"colour", b"\x00\xff", b"command_id", b"c1", b"device_id", DEVICE.encode()),
    *(b"payload", b"first", b"payload", "zweite \N{SNOWMAN}".encode(), b"", b""),
    *(b"expires_at", b"2199-01-01T00:00:00Z", b"codec", b"14"),
]


@ensureDeferred
async def test_a_command_moves_with_all_its_fields(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    connect(redis, "two", DEVICE)
    entry_id = redis.client.execute_command("XADD", STREAM, "*", *ODD_FIELDS).decode()
    read(redis, STREAM)
    entry = found(redis, STREAM, entry_id)
    command = Command.from_entry(entry.content or ())
    assert await ledger.offer(entry, command, waits=True) is Effect.MOVED
    assert await ledger.offer(entry, command, waits=True) is Effect.GONE
    assert is_empty(redis, STREAM)
    assert raw(redis, outbound("two")) == [ODD_FIELDS]
    assert said(redis) == []
    assert record_of(redis) is None


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["nobody", "dead", "one"])
async def test_a_command_whose_device_is_nowhere_waits_or_fails(
    owner: str, waits: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one")
    if owner != "nobody":
        connect(redis, owner, DEVICE)
    entry, command = given(redis)
    step = await ledger.offer(entry, command, waits)
    assert is_empty(redis, STREAM)
    assert not redis.client.exists(outbound("dead"))
    if waits:
        assert step is Effect.WAITS
        assert raw(redis, waiting()) == [entry.content]
        assert redis.client.smembers(WAITING) == [DEVICE.encode()]
        assert said(redis) == []
    else:
        assert step is Effect.FINISHED
        assert said(redis) == [("c1", "failed", "offline")]
        assert not redis.client.exists(waiting(), WAITING)
    assert await ledger.offer(entry, command, waits) is Effect.GONE


@ensureDeferred
@pytest.mark.parametrize("owner", ["nobody", "two"])
async def test_a_claim_is_given_back_with_the_command(
    owner: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    live(redis, "one", "two")
    if owner == "two":
        connect(redis, "two", DEVICE)
    entry, command = given(redis)
    await ledger.claim(entry, command)
    step = await ledger.offer(entry, command, waits=True, unwritten=True)
    assert step is (Effect.MOVED if owner == "two" else Effect.WAITS)
    assert record_of(redis) is None
    assert is_empty(redis, STREAM)
    # Asked for again when the next one has claimed it, which is nothing to this one.
    if owner == "two":
        (moved,) = read(redis, outbound("two"))
        two = CommandLedger(clock, connected.connection, "two")
        assert await two.claim(moved, command) is Effect.WON
        assert await ledger.offer(entry, command, waits=True, unwritten=True) is Effect.GONE
        assert record_of(redis) == f"sent {outbound('two')} {moved.id}"


@ensureDeferred
async def test_a_claim_that_was_given_back_fails_where_nobody_waits(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    step = await ledger.offer(entry, command, waits=False, unwritten=True)
    assert step is Effect.FINISHED
    assert said(redis) == [("c1", "failed", "offline")]
    assert (record_of(redis) or "").startswith("done failed ")


@ensureDeferred
async def test_a_new_command_goes_where_its_device_is(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one", "two")
    connect(redis, "two", DEVICE)
    _, command = given(redis)
    redis.client.delete(STREAM)
    assert await ledger.submit(command) == (Effect.MOVED, "two")
    ((*_, moved),) = [raw(redis, outbound("two"))]
    assert Command.from_entry(moved) == command
    # Its own instance is as good as any other.
    connect(redis, "one", DEVICE)
    assert await ledger.submit(command) == (Effect.MOVED, "one")
    assert Command.from_entry(raw(redis, STREAM)[0]) == command
    assert said(redis) == []
    assert set(redis.client.keys("commands:*")) == {STREAM.encode(), outbound("two").encode()}


@ensureDeferred
@pytest.mark.parametrize("owner", ["nobody", "dead"])
async def test_a_new_command_whose_device_is_nowhere(
    owner: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    if owner == "dead":
        connect(redis, "dead", DEVICE)
    command = Command.from_entry(
        [part.encode() for pair in fields("c1", DEVICE).items() for part in pair]
    )
    assert await ledger.submit(command) == (Effect.WAITS, "")
    assert Command.from_entry(raw(redis, waiting())[0]) == command
    assert redis.client.smembers(WAITING) == [DEVICE.encode()]
    assert said(redis) == []
    assert await ledger.submit(command, waits=False) == (Effect.FINISHED, "")
    assert said(redis) == [("c1", "failed", "offline")]
    assert await ledger.submit(command, waits=False) == (Effect.KNOWN, "")
    assert await ledger.submit(command) == (Effect.KNOWN, "")
    assert said(redis) == [("c1", "failed", "offline")]
    assert redis.client.xlen(waiting()) == 1


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "open"])
async def test_a_command_that_was_begun_with_is_not_new(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    live(redis, "one")
    connect(redis, "one", DEVICE)
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    assert await ledger.submit(command) == (Effect.KNOWN, "")
    assert snapshot(redis) == before


@ensureDeferred
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
async def test_an_instance_that_lives_after_all_keeps_what_it_has(
    act: Act, state: str, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    live(redis, "one")
    before = snapshot(redis)
    taking_over = CommandLedger(clock, connected.connection, "janitor", dead="one")
    assert await act(taking_over, entry, command) is Effect.ALIVE
    assert snapshot(redis) == before
    redis.client.delete("instance:heartbeat:one")
    assert await act(taking_over, entry, command) is not Effect.ALIVE
