"""Tests of the delivery of commands to devices, on a real Redis."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    device_with_claim,
    record_of,
    wait_ended,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    append_entry,
    contents,
    is_empty,
    outbound,
    record_key,
    register_devices,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, statuses
from tracker.commands.retrying import MIN_RETRY_DELAY

STREAM: Final = outbound("one")


@ensureDeferred
@pytest.mark.parametrize(
    ("refused", "status"), [(False, "responded"), (True, "rejected")], ids=["answered", "nack"]
)
async def test_command_is_written_and_answered(
    refused: bool, status: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", text="getinfo", codec="14")
    await one.wait_written(device, "getinfo")
    await one.until(lambda: summaries(redis) == [("c1", "delivered", "")], "said")
    assert one.delivery.backlog(DEVICE) == (0, True)
    assert record_of(redis).startswith("delivered ")
    assert redis.client.xlen(STREAM) == 1  # the instance owns the command until it has ended
    one.clock.advance(3)
    device.answer("INI:2026/1/1", codec="14", refused=refused)
    await wait_ended(one, redis, {"c1": status})
    assert one.delivery.backlog(DEVICE) == (0, False)
    assert one.delivery.responses == {("delivered", ""): 1, (status, ""): 1}
    assert one.delivery.answers.sum == pytest.approx(3)
    delivered, final = responses(redis)["c1"]
    assert final["response"] == "INI:2026/1/1"
    assert (final["instance_id"], final["device_id"]) == ("one", DEVICE)
    assert delivered["at"] <= final["at"]


@ensureDeferred
async def test_commands_wait_when_the_connection_ends_before_they_are_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    entry_ids = [one.send(f"c{number}") for number in range(3)]
    await one.wait_held(3)
    before = contents(redis, STREAM)
    assert len(entry_ids) == len(before)
    device.close()
    await one.until(lambda: contents(redis, waiting_stream()) == before, "they wait")
    await one.until(lambda: is_empty(redis, STREAM), "the stream is empty")
    assert summaries(redis) == []
    assert redis.client.keys("commands:sent:*") == []
    await one.wait_idle()
    assert one.fetched == []


@ensureDeferred
@pytest.mark.parametrize("by", ["another entry", "a final response", "a janitor", "a flush"])
async def test_command_that_is_owned_elsewhere_is_dropped(
    by: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    entry_id = one.send("c1")
    one.send("c2")
    await one.wait_held(2)
    match by:
        case "another entry":
            other = append_entry(redis, outbound("two"), fields("c1", DEVICE))
            redis.client.set(record_key("c1"), f"sent {other.stream} {other.id}")
        case "a final response":
            redis.client.set(record_key("c1"), "done failed 1-1")
        case "a janitor":
            redis.client.xack(STREAM, "ingest", entry_id)
            redis.client.xdel(STREAM, entry_id)
        case "a flush":
            redis.client.flushall()
            one.send("c2")
    device.free()
    await one.wait_written(device, "c2", step=MIN_RETRY_DELAY)
    device.answer("an answer")
    await wait_ended(one, redis, {"c2": "responded"})
    assert "c1" not in statuses(redis)
    assert device.written == ["c2"]


@ensureDeferred
async def test_command_with_an_unreadable_record_is_not_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.rpush(record_key("c1"), "a list")
    one.send("c1")
    one.send("c2")
    await one.wait_written(device, "c2")
    device.answer("an answer")
    await wait_ended(one, redis, {"c1": "failed/in_doubt", "c2": "responded"})


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["none", "two"])
async def test_claim_is_returned_when_the_connection_ends(
    owner: str, waits: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=waits)
    device = await device_with_claim(one, redis)
    if owner == "two":
        set_heartbeats(redis, "two")
        register_devices(redis, "two", DEVICE)
    content = contents(redis, STREAM)
    device.close()
    await one.wait_idle()
    await one.until(lambda: is_empty(redis, STREAM), "passed on")
    assert device.written == []
    if owner == "two":
        assert contents(redis, outbound("two")) == content
    elif waits:
        assert contents(redis, waiting_stream()) == content
    else:
        assert statuses(redis) == {"c1": "failed/offline"}
        return
    assert record_of(redis) == ""
    assert summaries(redis) == []


@ensureDeferred
async def test_claimed_command_is_written_on_a_newer_connection(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await device_with_claim(one, redis)
    newer = one.login()
    await one.wait_written(newer, "c1")
    newer.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded"})
    assert device.written == []
    assert not redis.client.exists(waiting_stream())


# Devices that move to another instance.


@ensureDeferred
async def test_commands_follow_a_device_to_another_instance(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = one.login()
    one.send("c1", timeout=100)
    await one.wait_written(device, "c1")
    for command_id in ("c2", "c3", "c4"):
        one.send(command_id)
    await one.wait_held(4)
    newer = two.login()
    await two.until(lambda: device_registry(redis) == {DEVICE: "two"}, "registered")
    one.clock.advance(30)  # the check of the device registry finds that the device has moved
    await one.until(lambda: device.closed, "noticed")
    for number in (1, 2, 3):
        await two.wait_written(newer, *("c2", "c3", "c4")[:number])
        newer.answer("an answer")
    await two.until(lambda: len(statuses(redis)) == 4, "all have ended")
    assert statuses(redis) == {
        "c1": "failed/disconnected",
        **dict.fromkeys(("c2", "c3", "c4"), "responded"),
    }
    assert device.written == ["c1"]
    await two.wait_idle()
    assert is_empty(redis, STREAM)
    assert is_empty(redis, outbound("two"))


@ensureDeferred
async def test_command_for_a_device_of_another_instance_is_passed_on(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = two.login()
    await two.until(lambda: device_registry(redis) == {DEVICE: "two"}, "registered")
    one.send("c1")
    await two.wait_written(device, "c1")
    assert is_empty(redis, STREAM)


@ensureDeferred
async def test_command_for_an_unconnected_device_fails_if_commands_do_not_wait(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=False)
    one.send("c1")
    await wait_ended(one, redis, {"c1": "failed/offline"})
    device = one.login(busy=True)
    one.send("c2")
    await one.wait_held(1)
    device.close()
    await wait_ended(one, redis, {"c2": "failed/offline"})
