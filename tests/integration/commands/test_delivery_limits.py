"""Tests of the delivery with refused operations and unloaded entries, on a real Redis."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import Instances, ended_count_is
from tests.integration.commands.ledgers import (
    OTHER,
    command_ids,
    is_empty,
    outbound,
    waiting_stream,
)
from tests.servers import RedisServer
from tests.system.commands import statuses
from tracker.commands.delivery import MIN_RETRY_DELAY

STREAM: Final = outbound("one")


@ensureDeferred
async def test_refusal_by_redis_affects_only_commands_of_the_same_device(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.set(waiting_stream(OTHER), "no stream")
    one.send("c1", OTHER)
    one.send("c2")
    await one.wait_written(device, "c2")
    device.answer("an answer")
    await one.until(ended_count_is(redis, 1), "answered")
    report = one.reports[-1] or ""
    assert "commands:outbound:one" in report
    assert "WRONGTYPE" in report
    redis.client.delete(waiting_stream(OTHER))
    await one.until(lambda: redis.client.xlen(waiting_stream(OTHER)) == 1, "waits", step=0.5)
    await one.until(lambda: one.reports[-1] is None, "condition met")
    assert one.delivery.entries.held == 0
    assert statuses(redis) == {"c2": "responded"}


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold at most four entries, and two for one device."""
    monkeypatch.setattr("tracker.commands.entries.MAX_HELD", 4)
    monkeypatch.setattr("tracker.commands.queue.MAX_PER_DEVICE", 2)


@ensureDeferred
async def test_unloaded_commands_are_passed_on_when_the_device_disconnects(
    small_limits: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [one.send(f"c{number}") for number in range(9)]
    lost = ids[5]
    one.send("short", expires_in=30)
    await one.wait_held(10)
    redis.client.xack(STREAM, "ingest", lost)
    redis.client.xdel(STREAM, lost)
    redis.kill()
    redis.start()
    await one.connected()
    await one.wait_held(10)
    one.clock.advance(60)
    device.close()
    await one.until(lambda: is_empty(redis, STREAM), "passed on", step=MIN_RETRY_DELAY)
    await one.wait_idle()
    assert command_ids(redis, waiting_stream()) == [
        f"c{number}" for number in range(9) if number != 5
    ]
    assert statuses(redis) == {"short": "expired"}
