"""Tests of each operation of the ledger in each state of a command, on a real Redis."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import (
    DEVICE,
    append_entry,
    contents,
    dump_all,
    is_empty,
    outbound,
    queued_command,
    read_new,
    record_key,
    summaries,
    waiting_stream,
)
from tests.integration.commands.states import (
    ANSWERED,
    DAY_MS,
    IN_DOUBT,
    OPERATIONS,
    RESPONDED,
    STATES,
    STREAM,
    Operation,
    arrange,
    expected,
    outlives_command,
    record_of,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import RESPONSES, responses
from tracker.command import EXPIRED, Reason, StatusUpdate
from tracker.commands.ledger import CommandLedger, Effect


@ensureDeferred
@pytest.mark.parametrize("here", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operation_has_its_documented_effect_in_each_state(
    operation: Operation, state: str, here: bool, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    arrange(redis, state, entry)
    if not here:
        redis.client.xack(STREAM, "ingest", entry.id)
        redis.client.xdel(STREAM, entry.id)
    effect, response = expected(operation, state, here)
    assert await operation(ledger, entry, command) is effect
    assert summaries(redis) == ([] if response is None else [response])
    if effect in (Effect.FINISHED, Effect.OVER, Effect.WAITS):
        assert is_empty(redis, STREAM)
    if response is not None:
        (last,) = redis.client.xrange(RESPONSES)
        assert record_of(redis) == f"done {response[1]} {last[0].decode()}"
    if effect is Effect.WAITS:
        assert record_of(redis) is None
        assert contents(redis, waiting_stream()) == [entry.content]
    # A repeated operation changes nothing.
    before = dump_all(redis)
    again = await operation(ledger, entry, command)
    unchanged = (Effect.WON, Effect.OPEN, Effect.KNOWN)
    assert again is (effect if effect in unchanged else Effect.GONE)
    assert dump_all(redis) == before
    assert ledger.responses == ({} if response is None else {response[1:]: 1})


@ensureDeferred
@pytest.mark.parametrize("expires_in", [60, 30 * 86_400])
async def test_record_names_the_claiming_entry_and_outlives_the_command(
    expires_in: float, ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = queued_command(redis, expires_in=expires_in)
    assert await ledger.claim(entry, command) is Effect.WON
    assert record_of(redis) == f"sent {STREAM} {entry.id}"
    assert outlives_command(redis, clock, command)
    assert await ledger.claim(entry, command) is Effect.WON
    assert summaries(redis) == []
    await ledger.delivered(entry, command)
    assert record_of(redis) == f"delivered {STREAM} {entry.id}"
    assert outlives_command(redis, clock, command)
    assert ledger.responses == {("delivered", ""): 1}
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.FINISHED
    assert outlives_command(redis, clock, command)


@ensureDeferred
async def test_record_of_an_expired_command_is_kept_for_a_day(
    ledger: CommandLedger, redis: RedisServer, clock: Clock
) -> None:
    entry, command = queued_command(redis, expires_in=-7 * 86_400)
    assert await ledger.finish(entry, command, EXPIRED) is Effect.FINISHED
    assert redis.client.pttl(record_key("c1")) > DAY_MS - 20_000


@ensureDeferred
async def test_command_with_two_entries_is_claimed_once(
    ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = queued_command(redis)
    second, _ = queued_command(redis)
    elsewhere, _ = queued_command(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await ledger.claim(second, command) is Effect.WON
    assert await ledger.claim(first, command) is Effect.OVER
    assert await two.claim(elsewhere, command) is Effect.OVER
    assert is_empty(redis, outbound("two"))
    assert contents(redis, STREAM) == [second.content]
    assert summaries(redis) == []
    await ledger.finish(second, command, ANSWERED, written=True)
    third, _ = queued_command(redis)
    assert await ledger.claim(third, command) is Effect.OVER
    assert summaries(redis) == [RESPONDED]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("lost", ["the entry", "the stream"])
async def test_second_entry_of_a_command_is_in_doubt_if_the_claimed_entry_was_lost(
    lost: str, ledger: CommandLedger, connected: Connected, redis: RedisServer, clock: Clock
) -> None:
    first, command = queued_command(redis, instance_id="two")
    two = CommandLedger(clock, connected.connection, "two")
    assert await two.claim(first, command) is Effect.WON
    if lost == "the entry":
        redis.client.xdel(first.stream, first.id)
    else:
        redis.client.delete(first.stream)
    second, _ = queued_command(redis)
    assert await ledger.claim(second, command) is Effect.OVER
    assert summaries(redis) == [IN_DOUBT]
    # The other instance does not give a second response.
    assert await two.finish(first, command, ANSWERED, written=True) is Effect.GONE
    assert summaries(redis) == [IN_DOUBT]


@ensureDeferred
async def test_delivered_response_is_appended_once(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    await ledger.claim(entry, command)
    for _ in range(3):
        await ledger.delivered(entry, command)
    assert summaries(redis) == [("c1", "delivered", "")]
    for _ in range(3):
        await ledger.finish(entry, command, ANSWERED, written=True)
        await ledger.delivered(entry, command)
    assert summaries(redis) == [("c1", "delivered", ""), RESPONDED]
    delivered, responded = responses(redis)["c1"]
    assert responded["response"] == "INI:2026/1/1"
    assert responded["instance_id"] == delivered["instance_id"] == "one"
    assert responded["device_id"] == DEVICE
    assert list(responded) == [
        *("command_id", "device_id", "instance_id", "status", "response", "reason", "at"),
        *("payload", "payload_hex", "sender", "sent_at"),
    ]


@ensureDeferred
@pytest.mark.parametrize("state", [state for state in STATES if state != "sent"])
async def test_delivered_response_is_not_appended_without_a_claim(
    state: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    arrange(redis, state, entry)
    before = dump_all(redis)
    await ledger.delivered(entry, command)
    assert dump_all(redis) == before


@ensureDeferred
async def test_written_command_gets_its_response_after_a_flush_of_redis(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    await ledger.claim(entry, command)
    redis.client.flushall()
    await ledger.delivered(entry, command)
    assert summaries(redis) == []
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.FINISHED
    assert await ledger.finish(entry, command, ANSWERED, written=True) is Effect.GONE
    assert summaries(redis) == [RESPONDED]
    # A second entry of the command is not written.
    again, _ = queued_command(redis)
    assert await ledger.claim(again, command) is Effect.OVER


@ensureDeferred
async def test_unwritten_command_is_lost_by_a_flush_of_redis(
    ledger: CommandLedger, redis: RedisServer
) -> None:
    entry, command = queued_command(redis)
    redis.client.flushall()
    assert await ledger.claim(entry, command) is Effect.GONE
    assert await ledger.finish(entry, command, EXPIRED) is Effect.GONE
    assert await ledger.offer(entry, command, waits=True) is Effect.GONE
    assert redis.client.keys() == []


@ensureDeferred
@pytest.mark.parametrize(
    ("command_id", "device_id"), [("c1", DEVICE), ("c1", ""), ("", DEVICE), ("", "")]
)
async def test_malformed_entry_is_refused_once(
    command_id: str, device_id: str, ledger: CommandLedger, redis: RedisServer
) -> None:
    entry = append_entry(redis, STREAM, {"payload": "getinfo"})
    read_new(redis, STREAM)
    update = StatusUpdate.failed(Reason.MALFORMED, "command_id: must be …")
    assert await ledger.refuse(entry, command_id, device_id, update) is Effect.FINISHED
    assert await ledger.refuse(entry, command_id, device_id, update) is Effect.GONE
    assert is_empty(redis, STREAM)
    assert set(redis.client.keys("commands:sent:*")) == (
        {record_key(command_id).encode()} if command_id else set()
    )
    ((response,),) = responses(redis).values()
    assert (response["command_id"], response["device_id"]) == (command_id, device_id)
    assert (response["reason"], response["response"]) == ("malformed", "command_id: must be …")
    # A second malformed entry gets its own response only if it has no usable command ID.
    second = append_entry(redis, STREAM, {"payload": "getinfo"})
    effect = await ledger.refuse(second, command_id, device_id, update)
    assert effect is (Effect.OVER if command_id else Effect.FINISHED)
    assert is_empty(redis, STREAM)
