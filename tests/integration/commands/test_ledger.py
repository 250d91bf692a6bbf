"""Each step with a command, in each state that it can be found in, on a real server."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.endings import (
    ACTS,
    ANSWERED,
    DAY_MS,
    DOUBT,
    RESPONDED,
    STATES,
    STREAM,
    Act,
    arrange,
    expected,
    record_of,
    remembered,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    given,
    is_empty,
    outbound,
    put,
    raw,
    read,
    said,
    sent,
    snapshot,
    waiting,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import RESPONSES, responses
from tracker.command import EXPIRED, Reason, StatusUpdate
from tracker.commands.ledger import CommandLedger, Effect


@ensureDeferred
@pytest.mark.parametrize("here", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
async def test_each_step_in_each_state(
    act: Act, state: str, here: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    if not here:
        redis.client.xack(STREAM, "ingest", entry.id)
        redis.client.xdel(STREAM, entry.id)
    step, response = expected(act, state, here)
    assert await act(ledger, entry, command) is step
    assert said(redis) == ([] if response is None else [response])
    if step in (Effect.FINISHED, Effect.OVER, Effect.WAITS):
        assert is_empty(redis, STREAM)
    if response is not None:
        (last,) = redis.client.xrange(RESPONSES)
        assert record_of(redis) == f"done {response[1]} {last[0].decode()}"
    if step is Effect.WAITS:
        assert record_of(redis) is None
        assert raw(redis, waiting()) == [entry.content]
    # However often it is asked for again, nothing more comes of it.
    before = snapshot(redis)
    again = await act(ledger, entry, command)
    assert again is (step if step in (Effect.WON, Effect.OPEN) else Effect.GONE)
    assert snapshot(redis) == before
    # What is counted is what was said.
    assert ledger.responses == ({} if response is None else {response[1:]: 1})


@ensureDeferred
@pytest.mark.parametrize("expires_in", [60, 30 * 86_400])
async def test_a_claim_says_who_has_it_and_outlives_the_command(
    expires_in: float, ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis, expires_in=expires_in)
    assert await ledger.claim(entry, command) is Effect.WON
    assert record_of(redis) == f"sent {STREAM} {entry.id}"
    assert remembered(redis, clock, command)
    assert await ledger.claim(entry, command) is Effect.WON
    assert said(redis) == []
    await ledger.delivered(entry, command)
    assert record_of(redis) == f"delivered {STREAM} {entry.id}"
    assert remembered(redis, clock, command)
    assert ledger.responses == {("delivered", ""): 1}
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.FINISHED
    assert remembered(redis, clock, command)


@ensureDeferred
async def test_what_has_expired_long_ago_is_remembered_for_a_day(
    ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = given(redis, expires_in=-7 * 86_400)
    assert await ledger.finish(entry, command, EXPIRED) is Effect.FINISHED
    assert redis.client.pttl(sent("c1")) > DAY_MS - 20_000


@ensureDeferred
async def test_two_entries_of_one_command_are_claimed_once(
    ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = given(redis)
    second, _ = given(redis)
    elsewhere, _ = given(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await ledger.claim(second, command) is Effect.WON
    assert await ledger.claim(first, command) is Effect.OVER
    assert await two.claim(elsewhere, command) is Effect.OVER
    assert is_empty(redis, outbound("two"))
    assert raw(redis, STREAM) == [second.content]
    assert said(redis) == []
    await ledger.finish(second, command, ANSWERED, written=True)
    third, _ = given(redis)
    assert await ledger.claim(third, command) is Effect.OVER
    assert said(redis) == [RESPONDED]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("lost", ["the entry", "the stream"])
async def test_a_second_entry_whose_first_has_vanished_is_in_doubt(
    lost: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = given(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await two.claim(first, command) is Effect.WON
    if lost == "the entry":
        redis.client.xdel(first.stream, first.id)
    else:
        redis.client.delete(first.stream)
    second, _ = given(redis)
    assert await ledger.claim(second, command) is Effect.OVER
    assert said(redis) == [DOUBT]
    # The other instance learns of it, and adds nothing.
    assert await two.finish(first, command, ANSWERED, written=True) is Effect.GONE
    assert said(redis) == [DOUBT]


@ensureDeferred
async def test_it_is_said_once_that_a_command_was_delivered(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    for _ in range(3):
        await ledger.delivered(entry, command)
    assert said(redis) == [("c1", "delivered", "")]
    for _ in range(3):
        await ledger.finish(entry, command, ANSWERED, written=True)
        await ledger.delivered(entry, command)
    assert said(redis) == [("c1", "delivered", ""), RESPONDED]
    delivered, responded = responses(redis)["c1"]
    assert responded["response"] == "INI:2026/1/1"
    assert responded["instance_id"] == delivered["instance_id"] == "one"
    assert responded["device_id"] == DEVICE
    assert list(responded) == [
        *("command_id", "device_id", "instance_id", "status", "response", "reason", "at"),
    ]


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "sent"])
async def test_nothing_is_said_of_what_was_not_won(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    arrange(redis, state, entry)
    before = snapshot(redis)
    await ledger.delivered(entry, command)
    assert snapshot(redis) == before


@ensureDeferred
async def test_what_was_written_and_flushed_gets_its_response(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    await ledger.claim(entry, command)
    redis.client.flushall()
    await ledger.delivered(entry, command)
    assert said(redis) == []
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.FINISHED
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.GONE
    assert said(redis) == [RESPONDED]
    # Whoever has sent it again learns that it is over.
    again, _ = given(redis)
    assert await ledger.claim(again, command) is Effect.OVER


@ensureDeferred
async def test_what_was_flushed_before_it_was_written_is_gone(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = given(redis)
    redis.client.flushall()
    assert await ledger.claim(entry, command) is Effect.GONE
    assert await ledger.finish(entry, command, EXPIRED) is Effect.GONE
    assert await ledger.offer(entry, command, waits=True) is Effect.GONE
    assert redis.client.keys() == []


@ensureDeferred
@pytest.mark.parametrize(
    ("command_id", "device_id"), [("c1", DEVICE), ("c1", ""), ("", DEVICE), ("", "")]
)
async def test_what_is_no_command_is_refused_once(
    command_id: str, device_id: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry = put(redis, STREAM, {"payload": "getinfo"})
    read(redis, STREAM)
    update = StatusUpdate.failed(Reason.MALFORMED, "command_id: must be …")
    assert await ledger.refuse(entry, command_id, device_id, update) is Effect.FINISHED
    assert await ledger.refuse(entry, command_id, device_id, update) is Effect.GONE
    assert is_empty(redis, STREAM)
    assert set(redis.client.keys("commands:sent:*")) == (
        {sent(command_id).encode()} if command_id else set()
    )
    ((response,),) = responses(redis).values()
    assert (response["command_id"], response["device_id"]) == (command_id, device_id)
    assert (response["reason"], response["response"]) == ("malformed", "command_id: must be …")
    # Another such entry has a response of its own only if nobody can tell them apart.
    second = put(redis, STREAM, {"payload": "getinfo"})
    step = await ledger.refuse(second, command_id, device_id, update)
    assert step is (Effect.OVER if command_id else Effect.FINISHED)
    assert is_empty(redis, STREAM)
