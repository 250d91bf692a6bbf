"""Commands on their way through one instance, to devices without sockets, on a real server."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    claimed,
    is_told,
    record_of,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    connect,
    is_empty,
    live,
    outbound,
    put,
    raw,
    said,
    sent,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import device_registry, fields, responses, statuses
from tracker.commands.retrying import MIN_RETRY_DELAY

STREAM: Final = outbound("one")


# What becomes of a command, row by row.


@ensureDeferred
@pytest.mark.parametrize(
    ("refused", "status"), [(False, "responded"), (True, "rejected")], ids=["answered", "nack"]
)
async def test_a_command_is_written_and_answered(
    refused: bool, status: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", text="getinfo", codec="14")
    await one.has_written(device, "getinfo")
    await one.until(lambda: said(redis) == [("c1", "delivered", "")], "said")
    assert one.delivery.backlog(DEVICE) == (0, True)
    assert record_of(redis).startswith("delivered ")
    assert redis.client.xlen(STREAM) == 1  # it is responsible until there is an answer
    one.clock.advance(3)
    device.say("INI:2026/1/1", codec="14", refused=refused)
    await is_told(one, redis, {"c1": status})
    assert one.delivery.backlog(DEVICE) == (0, False)
    assert one.delivery.responses == {("delivered", ""): 1, (status, ""): 1}
    assert one.delivery.answers.sum == pytest.approx(3)
    delivered, final = responses(redis)["c1"]
    assert final["response"] == "INI:2026/1/1"
    assert (final["instance_id"], final["device_id"]) == ("one", DEVICE)
    assert delivered["at"] <= final["at"]


@ensureDeferred
async def test_a_connection_that_ends_before_its_turn_leaves_the_commands_to_others(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    contents = [one.send(f"c{number}") for number in range(3)]
    await one.has_read(3)
    before = raw(redis, STREAM)
    assert len(contents) == len(before)
    device.close()
    await one.until(lambda: raw(redis, waiting()) == before, "they wait")
    await one.until(lambda: is_empty(redis, STREAM), "they are here no more")
    assert said(redis) == []
    assert redis.client.keys("commands:sent:*") == []
    await one.is_idle()
    assert one.fetched == []


@ensureDeferred
@pytest.mark.parametrize("by", ["another entry", "a final response", "a janitor", "a flush"])
async def test_a_command_that_somebody_else_has_begun_with_is_dropped(
    by: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    entry_id = one.send("c1")
    one.send("c2")
    await one.has_read(2)
    match by:
        case "another entry":
            other = put(redis, outbound("two"), fields("c1", DEVICE))
            redis.client.set(sent("c1"), f"sent {other.stream} {other.id}")
        case "a final response":
            redis.client.set(sent("c1"), "done failed 1-1")
        case "a janitor":
            redis.client.xack(STREAM, "ingest", entry_id)
            redis.client.xdel(STREAM, entry_id)
        case "a flush":
            redis.client.flushall()
            one.send("c2")
    device.free()
    await one.has_written(device, "c2", step=MIN_RETRY_DELAY)
    device.say("an answer")
    await is_told(one, redis, {"c2": "responded"})
    assert "c1" not in statuses(redis)
    assert device.written == ["c2"]


@ensureDeferred
async def test_a_command_whose_fate_nobody_understands_is_not_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.rpush(sent("c1"), "a list")
    one.send("c1")
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await is_told(one, redis, {"c1": "failed/in_doubt", "c2": "responded"})


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["nobody", "two"])
async def test_a_claim_is_given_back_when_the_connection_ends(
    owner: str, waits: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=waits)
    device = await claimed(one, redis)
    if owner == "two":
        live(redis, "two")
        connect(redis, "two", DEVICE)
    content = raw(redis, STREAM)
    device.close()
    await one.is_idle()
    await one.until(lambda: is_empty(redis, STREAM), "passed on")
    assert device.written == []
    if owner == "two":
        assert raw(redis, outbound("two")) == content
    elif waits:
        assert raw(redis, waiting()) == content
    else:
        assert statuses(redis) == {"c1": "failed/offline"}
        return
    assert record_of(redis) == ""
    assert said(redis) == []


@ensureDeferred
async def test_a_device_that_comes_again_gets_what_was_claimed_for_its_old_connection(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await claimed(one, redis)
    newer = one.login()
    await one.has_written(newer, "c1")
    newer.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    assert device.written == []
    assert not redis.client.exists(waiting())


# Its device goes elsewhere.


@ensureDeferred
async def test_commands_follow_a_device_to_another_instance(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = one.login()
    one.send("c1", timeout=100)
    await one.has_written(device, "c1")
    for command_id in ("c2", "c3", "c4"):
        one.send(command_id)
    await one.has_read(4)
    newer = two.login()
    await two.until(lambda: device_registry(redis) == {DEVICE: "two"}, "registered")
    one.clock.advance(30)  # looks at the device_registry, and sees that the device has moved
    await one.until(lambda: device.closed, "noticed")
    for number in (1, 2, 3):
        await two.has_written(newer, *("c2", "c3", "c4")[:number])
        newer.say("an answer")
    await two.until(lambda: len(statuses(redis)) == 4, "all have ended")
    assert statuses(redis) == {
        "c1": "failed/disconnected",
        **dict.fromkeys(("c2", "c3", "c4"), "responded"),
    }
    assert device.written == ["c1"]
    await two.is_idle()
    assert is_empty(redis, STREAM)
    assert is_empty(redis, outbound("two"))


@ensureDeferred
async def test_a_command_for_a_device_that_is_elsewhere_is_passed_on(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = two.login()
    await two.until(lambda: device_registry(redis) == {DEVICE: "two"}, "registered")
    one.send("c1")
    await two.has_written(device, "c1")
    assert is_empty(redis, STREAM)


@ensureDeferred
async def test_where_nobody_waits_a_command_for_a_device_that_is_nowhere_fails(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=False)
    one.send("c1")
    await is_told(one, redis, {"c1": "failed/offline"})
    device = one.login(busy=True)
    one.send("c2")
    await one.has_read(1)
    device.close()
    await is_told(one, redis, {"c2": "failed/offline"})
