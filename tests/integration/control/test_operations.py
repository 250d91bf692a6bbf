"""Tests of the commands of a control port with a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    WAITING,
    append_entry,
    command_ids,
    outbound,
    queued_command,
    read_new,
    record_key,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.integration.control.bench import ControlBench
from tests.lags import make_lag_unknown
from tests.servers import RedisServer
from tests.system.commands import RESPONSES, fields
from tests.waiting import until
from tracker.command import Command, Status, StatusUpdate
from tracker.commands.ledger import Effect
from tracker.control.commands import (
    BadArgument,
    CommandStatus,
    GetDevice,
    Lag,
    NoSuchCommand,
    NoSuchDevice,
    SendCommand,
)
from tracker.log.entries import StreamEntry
from tracker.position import iso_milliseconds

# GetDevice.


@ensureDeferred
async def test_get_device_finds_a_device_on_any_instance(
    bench: ControlBench, redis: RedisServer
) -> None:
    set_heartbeats(redis, "two")
    error = await bench.refusal(GetDevice, device_id=DEVICE)
    assert isinstance(error, NoSuchDevice)
    append_entry(redis, waiting_stream(), fields("c1", DEVICE))
    append_entry(redis, waiting_stream(), fields("c2", DEVICE))
    reply = await bench.ask(GetDevice, device_id=DEVICE)
    assert (reply["here"], reply["instance_id"], reply["waiting"]) == (False, None, 2)
    register_devices(redis, "two", DEVICE)
    reply = await bench.ask(GetDevice, device_id=DEVICE)
    assert (reply["here"], reply["instance_id"]) == (False, "two")
    assert reply["queued"] is None
    bench.port.instance.connect(DEVICE)
    bench.port.instance.loads[DEVICE] = (1, False)
    reply = await bench.ask(GetDevice, device_id=DEVICE)
    assert (reply["here"], reply["instance_id"], reply["queued"]) == (True, "one", 1)


# SendCommand.


def options(**more: Any) -> dict[str, Any]:
    return {"device_id": DEVICE, "text": "getinfo", "command_id": "c1"} | more


@ensureDeferred
async def test_command_goes_to_the_instance_of_its_device(
    bench: ControlBench, redis: RedisServer
) -> None:
    set_heartbeats(redis, "two")
    register_devices(redis, "two", DEVICE)
    reply = await bench.ask(SendCommand, **options(expires_in=60.0, timeout=5.0, codec="14"))
    assert (reply["status"], reply["instance_id"]) == ("queued", "two")
    (entry,) = read_new(redis, outbound("two"))
    command = Command.from_entry(entry.content or ())
    assert (command.command_id, command.text, command.codec) == ("c1", "getinfo", "14")
    assert command.timeout == 5.0
    assert command.expires_at == int(bench.clock.seconds() * 1000) + 60_000


@ensureDeferred
async def test_bytes_of_a_command_are_appended_in_hex(
    bench: ControlBench, redis: RedisServer
) -> None:
    arguments = {"device_id": DEVICE, "payload_hex": "0A:0b ff", "command_id": "c1"}
    await bench.ask(SendCommand, **arguments)
    (entry,) = read_new(redis, waiting_stream())
    assert entry.fields[b"payload_hex"] == b"0a0bff"
    assert b"payload" not in entry.fields
    for more in ({"text": "getinfo"}, {"payload_hex": "0"}, {"payload_hex": ""}):
        error = await bench.refusal(SendCommand, **(arguments | {"command_id": "c2"} | more))
        assert isinstance(error, BadArgument)


@ensureDeferred
async def test_command_is_sent_with_the_given_time_of_expiry(
    bench: ControlBench, redis: RedisServer
) -> None:
    await bench.ask(SendCommand, **options(expires_at="2031-01-01T00:00:00+01:00"))
    (entry,) = read_new(redis, waiting_stream())
    assert entry.fields[b"expires_at"] == b"2030-12-31T23:00:00.000Z"


@ensureDeferred
async def test_command_for_an_unconnected_device_waits(
    bench: ControlBench, redis: RedisServer
) -> None:
    for where in (None, "dead"):
        if where is not None:
            register_devices(redis, where, DEVICE)  # an instance without a heartbeat
        for offline in ({}, {"offline": "wait"}):
            reply = await bench.ask(SendCommand, **options(**offline))
            assert (reply["status"], reply["instance_id"]) == ("waiting", None)
    assert set(command_ids(redis, waiting_stream())) == {"c1"}
    assert set(redis.client.smembers(WAITING)) == {DEVICE.encode()}


@ensureDeferred
async def test_command_for_an_unconnected_device_fails_with_offline_fail(
    bench: ControlBench, redis: RedisServer
) -> None:
    for _ in range(2):  # the second time, the command is known
        reply = await bench.ask(SendCommand, **options(offline="fail"))
        assert (reply["status"], reply["reason"]) == ("failed", "offline")
    assert summaries(redis) == [("c1", "failed", "offline")]
    assert not redis.client.exists(waiting_stream())


@pytest.mark.parametrize("wait", [False, True])
@ensureDeferred
async def test_status_of_a_known_command_is_returned_instead_of_sending(
    bench: ControlBench, redis: RedisServer, wait: bool
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    entry, command = queued_command(redis)
    ledger = bench.ledger()
    await ledger.claim(entry, command)
    if not wait:
        reply = await bench.ask(SendCommand, **options())
        assert (reply["status"], reply["instance_id"]) == ("sent", "one")
    await ledger.delivered(entry, command)
    await ledger.finish(entry, command, StatusUpdate(Status.RESPONDED, response="fine"), True)
    reply = await bench.ask(SendCommand, **options(text="another", wait=wait))
    assert (reply["status"], reply["response"]) == ("responded", "fine")
    assert reply["instance_id"] == "one"
    assert command_ids(redis, outbound("one")) == []


async def read_command(bench: ControlBench) -> tuple[StreamEntry, Command]:
    """Read the command as its instance does."""
    entries: list[StreamEntry] = []

    def is_read() -> bool:
        bench.client.pump()
        entries.extend(read_new(bench.redis, outbound("one"), "one"))
        return bool(entries)

    await until(is_read, "command read")
    (entry,) = entries
    return entry, Command.from_entry(entry.content or ())


@ensureDeferred
async def test_waiting_client_receives_the_final_response(
    bench: ControlBench, redis: RedisServer
) -> None:
    set_heartbeats(redis, "one")
    register_devices(redis, "one", DEVICE)
    asked = bench.client.begin(SendCommand, **options(wait=True))
    entry, command = await read_command(bench)
    await bench.poll()
    ledger = bench.ledger()
    assert await ledger.claim(entry, command) is Effect.WON
    await ledger.delivered(entry, command)
    await bench.poll()
    assert not asked.has_reply
    at = iso_milliseconds(ledger.now)
    update = StatusUpdate(Status.RESPONDED, response="INI:2026/1/1 ü")
    await ledger.finish(entry, command, update, True)
    await bench.poll()
    reply = (await bench.settled(asked)).result()
    assert (reply["status"], reply["response"]) == (update.status, update.response)
    assert reply["at"] == at
    assert bench.port.timers == 0


# CommandStatus.


async def status(bench: ControlBench, device_id: str | None = None) -> tuple[Any, ...]:
    about = {} if device_id is None else {"device_id": device_id}
    reply = await bench.ask(CommandStatus, command_id="c1", **about)
    return reply["status"], reply["instance_id"]


@ensureDeferred
async def test_command_status_of_a_command_that_was_never_sent_is_an_error(
    bench: ControlBench,
) -> None:
    for about in ({}, {"device_id": DEVICE}, {"device_id": "356307042441039"}):
        error = await bench.refusal(CommandStatus, command_id="c1", **about)
        assert isinstance(error, NoSuchCommand)
        assert "unknown command ID" in str(error)


@ensureDeferred
async def test_waiting_command_is_found_by_its_device(
    bench: ControlBench, redis: RedisServer
) -> None:
    append_entry(redis, waiting_stream(), fields("c0", DEVICE))
    append_entry(redis, waiting_stream(), fields("c1", DEVICE))
    assert await status(bench, DEVICE) == ("waiting", None)
    for about in ({}, {"device_id": OTHER}):
        error = await bench.refusal(CommandStatus, command_id="c1", **about)
        assert isinstance(error, NoSuchCommand)


@ensureDeferred
async def test_command_queued_at_another_instance_is_found_by_its_device(
    bench: ControlBench, redis: RedisServer
) -> None:
    set_heartbeats(redis, "two")
    register_devices(redis, "two", DEVICE)
    append_entry(redis, outbound("two"), fields("c1", DEVICE))
    assert await status(bench, DEVICE) == ("queued", "two")
    read_new(redis, outbound("two"))  # its instance has read the command
    assert await status(bench, DEVICE) == ("queued", "two")
    assert isinstance(await bench.refusal(CommandStatus, command_id="c1"), NoSuchCommand)


@ensureDeferred
async def test_command_status_is_reported_until_its_record_expires(
    bench: ControlBench, redis: RedisServer
) -> None:
    entry, command = queued_command(redis, instance_id="two")
    ledger = bench.ledger("two")
    await ledger.claim(entry, command)
    assert await status(bench) == ("sent", "two")
    await ledger.delivered(entry, command)
    assert await status(bench) == ("delivered", "two")
    await ledger.finish(entry, command, StatusUpdate(Status.RESPONDED, response="fine"), True)
    reply = await bench.ask(CommandStatus, command_id="c1")
    assert (reply["status"], reply["instance_id"]) == ("responded", "two")
    assert (reply["response"], reply["truncated"]) == ("fine", False)
    assert reply["at"].endswith("Z")
    redis.client.xtrim(RESPONSES, maxlen=0)
    reply = await bench.ask(CommandStatus, command_id="c1")
    assert (reply["status"], reply["instance_id"]) == ("responded", None)
    assert (reply["response"], reply["at"]) == (None, None)
    redis.client.delete(record_key("c1"))
    assert isinstance(await bench.refusal(CommandStatus, command_id="c1"), NoSuchCommand)


# Lag.


@ensureDeferred
async def test_lag_covers_all_advertised_streams(bench: ControlBench, redis: RedisServer) -> None:
    redis.client.set("instance:heartbeat:two", '{"streams": ["telemetry:other", "telemetry:no"]}')
    for stream in ("telemetry:teltonika", "telemetry:other", "elsewhere"):
        for _ in range(3):
            redis.client.xadd(stream, {"ts": "1"})
    for group in ("processor", "audit"):
        redis.client.xgroup_create("telemetry:other", group, "0")
    redis.client.xreadgroup("audit", "c", {"telemetry:other": ">"}, count=2)
    reply = await bench.ask(Lag)
    assert reply["more"] is False
    assert [
        (row["stream"], row["group"], row["entries"], row["lag"], row["pending"], row["consumers"])
        for row in reply["groups"]
    ] == [
        ("telemetry:other", "audit", 3, 1, 2, 1),
        ("telemetry:other", "processor", 3, 3, 0, 0),
        ("telemetry:teltonika", None, 3, None, None, None),
    ]
    (row,) = (await bench.ask(Lag, streams=["elsewhere"]))["groups"]
    assert (row["stream"], row["entries"]) == ("elsewhere", 3)
    assert (await bench.ask(Lag, streams=["nowhere"]))["groups"] == []
    (row,) = (await bench.ask(Lag, limit=1, skip=1))["groups"]
    assert row["group"] == "processor"


@ensureDeferred
async def test_unknown_lag_is_reported_as_unknown(bench: ControlBench, redis: RedisServer) -> None:
    redis.client.xadd("telemetry:teltonika", {"ts": "1"})
    redis.client.xgroup_create("telemetry:teltonika", "processor", "$")
    make_lag_unknown(redis, "telemetry:teltonika")
    (row,) = (await bench.ask(Lag))["groups"]
    assert row["lag"] is None
    assert row["oldest_unprocessed_age"] is not None
