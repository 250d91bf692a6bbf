"""Entries of an instance's stream: no commands, second ones, more than there is room for."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    is_told,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    command_ids,
    is_empty,
    outbound,
    said,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import fields, responses

STREAM: Final = outbound("one")


BAD: Final[dict[str, dict[Any, Any]]] = {
    "no UTF-8": {"payload": b"\xff"},
    "many fields": {f"field{number}": "" for number in range(100)},
}


@ensureDeferred
@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_command_is_refused_and_others_go_on(
    bad: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    content: dict[Any, Any] = fields("c1", DEVICE) | BAD[bad]
    redis.client.xadd(STREAM, content)
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await is_told(one, redis, {"c1": "failed/malformed", "c2": "responded"})
    assert responses(redis)["c1"][-1]["response"] != ""


@ensureDeferred
@pytest.mark.parametrize("command_id", [None, b"\xff"])
async def test_what_has_no_usable_id_gets_a_response_without(
    command_id: Any, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login()
    content: dict[Any, Any] = fields("", DEVICE) | {"command_id": command_id}
    if command_id is None:
        del content["command_id"]
    redis.client.xadd(STREAM, content)
    await one.until(lambda: said(redis) == [("", "failed", "malformed")], "refused")
    assert responses(redis)[""][0]["device_id"] == DEVICE
    await one.until(lambda: is_empty(redis, STREAM), "gone")
    assert redis.client.keys("commands:sent:*") == []


@ensureDeferred
@pytest.mark.parametrize("old", [True, False], ids=["old group", "new group"])
async def test_a_second_entry_of_a_command_makes_nothing_happen(
    old: bool, instances: Instances, redis: RedisServer
) -> None:
    if old:
        redis.client.xgroup_create(STREAM, "ingest", "0", mkstream=True)
    one = await instances.start()
    device = one.login(busy=True)
    for _ in range(3):
        one.send("c1")
    await one.has_read(3)
    device.free()
    await one.has_written(device, "c1")
    one.send("c1")  # while it is outstanding
    one.send("d1", OTHER)
    await one.until(lambda: command_ids(redis, waiting(OTHER)) == ["d1"], "read on")
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    one.send("c1")  # when it is over
    one.send("c2")
    await one.has_written(device, "c1", "c2")
    device.say("an answer")
    await is_told(one, redis, {"c2": "responded"})
    assert len(responses(redis)["c1"]) == 2


@ensureDeferred
async def test_a_command_that_was_taken_away_and_brought_back_is_not_lost(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    first = one.send("c1")
    await one.has_read(1)
    # As a janitor does that has seen no heartbeat, and the device's instance a moment later.
    redis.client.xack(STREAM, "ingest", first)
    redis.client.xdel(STREAM, first)
    one.send("c1")
    one.send("c2", OTHER)
    await one.until(lambda: command_ids(redis, waiting(OTHER)) == ["c2"], "read on")
    device.free()
    await one.has_written(device, "c1")
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})


@ensureDeferred
async def test_an_entry_that_somebody_has_deleted_is_forgotten(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    one.send("c1")
    await one.has_read(1)
    await one.crash()
    redis.client.xtrim(STREAM, maxlen=0)
    again = await instances.start()
    await again.until(lambda: is_empty(redis, STREAM), "forgotten")
    assert said(redis) == []
    assert device.written == []
