"""Tests of the delivery with malformed, second and deleted entries, on a real Redis."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    wait_ended,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    command_ids,
    is_empty,
    outbound,
    summaries,
    waiting_stream,
)
from tests.servers import RedisServer
from tests.system.commands import fields, responses

STREAM: Final = outbound("one")


MALFORMED: Final[dict[str, dict[Any, Any]]] = {
    "no UTF-8": {"payload": b"\xff"},
    "many fields": {f"field{number}": "" for number in range(100)},
}


@ensureDeferred
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_entry_is_refused_and_later_commands_are_delivered(
    case: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    content: dict[Any, Any] = fields("c1", DEVICE) | MALFORMED[case]
    redis.client.xadd(STREAM, content)
    one.send("c2")
    await one.wait_written(device, "c2")
    device.answer("an answer")
    await wait_ended(one, redis, {"c1": "failed/malformed", "c2": "responded"})
    assert responses(redis)["c1"][-1]["response"] != ""


@ensureDeferred
@pytest.mark.parametrize("command_id", [None, b"\xff"])
async def test_entry_without_a_usable_id_gets_a_response_without_an_id(
    command_id: Any, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login()
    content: dict[Any, Any] = fields("", DEVICE) | {"command_id": command_id}
    if command_id is None:
        del content["command_id"]
    redis.client.xadd(STREAM, content)
    await one.until(lambda: summaries(redis) == [("", "failed", "malformed")], "refused")
    assert responses(redis)[""][0]["device_id"] == DEVICE
    await one.until(lambda: is_empty(redis, STREAM), "gone")
    assert redis.client.keys("commands:sent:*") == []


@ensureDeferred
@pytest.mark.parametrize("old", [True, False], ids=["old group", "new group"])
async def test_second_entry_of_a_command_has_no_effect(
    old: bool, instances: Instances, redis: RedisServer
) -> None:
    if old:
        redis.client.xgroup_create(STREAM, "ingest", "0", mkstream=True)
    one = await instances.start()
    device = one.login(busy=True)
    for _ in range(3):
        one.send("c1")
    await one.wait_held(3)
    device.free()
    await one.wait_written(device, "c1")
    one.send("c1")  # while the command is outstanding
    one.send("d1", OTHER)
    await one.until(lambda: command_ids(redis, waiting_stream(OTHER)) == ["d1"], "read on")
    device.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded"})
    one.send("c1")  # after it has ended
    one.send("c2")
    await one.wait_written(device, "c1", "c2")
    device.answer("an answer")
    await wait_ended(one, redis, {"c2": "responded"})
    assert len(responses(redis)["c1"]) == 2


@ensureDeferred
async def test_command_that_was_moved_away_and_back_is_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    first = one.send("c1")
    await one.wait_held(1)
    # A janitor that has not found the heartbeat moves the command; then it is moved back.
    redis.client.xack(STREAM, "ingest", first)
    redis.client.xdel(STREAM, first)
    one.send("c1")
    one.send("c2", OTHER)
    await one.until(lambda: command_ids(redis, waiting_stream(OTHER)) == ["c2"], "read on")
    device.free()
    await one.wait_written(device, "c1")
    device.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded"})


@ensureDeferred
async def test_deleted_entry_is_acknowledged(instances: Instances, redis: RedisServer) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    one.send("c1")
    await one.wait_held(1)
    await one.crash()
    redis.client.xtrim(STREAM, maxlen=0)
    again = await instances.start()
    await again.until(lambda: is_empty(redis, STREAM), "acknowledged")
    assert summaries(redis) == []
    assert device.written == []
