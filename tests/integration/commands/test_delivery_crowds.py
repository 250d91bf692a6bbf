"""Many commands in one instance, some of which are in the way of others, on a real server."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import Instances, have_ended
from tests.integration.commands.ledgers import (
    OTHER,
    command_ids,
    is_empty,
    outbound,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import statuses
from tracker.commands.delivery import MIN_RETRY_DELAY

STREAM: Final = outbound("one")


@ensureDeferred
async def test_what_redis_refuses_for_one_device_is_nothing_to_the_others(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.set(waiting(OTHER), "no stream")
    one.send("c1", OTHER)
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await one.until(have_ended(redis, 1), "answered")
    report = one.reports[-1] or ""
    assert "commands:outbound:one" in report
    assert "WRONGTYPE" in report
    redis.client.delete(waiting(OTHER))
    await one.until(lambda: redis.client.xlen(waiting(OTHER)) == 1, "waits", step=0.5)
    await one.until(lambda: one.reports[-1] is None, "well again")
    assert one.delivery.entries.held == 0
    assert statuses(redis) == {"c2": "responded"}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are held at once, and fewer for one device."""
    monkeypatch.setattr("tracker.commands.entries.MAX_HELD", 4)
    monkeypatch.setattr("tracker.commands.queue.MAX_PER_DEVICE", 2)


@ensureDeferred
async def test_what_is_behind_goes_along_when_the_device_leaves(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [one.send(f"c{number}") for number in range(9)]
    lost = ids[5]
    one.send("short", expires_in=30)
    await one.has_read(10)
    redis.client.xack(STREAM, "ingest", lost)
    redis.client.xdel(STREAM, lost)
    redis.kill()
    redis.start()
    await one.connected()
    await one.has_read(10)
    one.clock.advance(60)
    device.close()
    await one.until(lambda: is_empty(redis, STREAM), "passed on", step=MIN_RETRY_DELAY)
    await one.is_idle()
    assert command_ids(redis, waiting()) == [f"c{number}" for number in range(9) if number != 5]
    assert statuses(redis) == {"short": "expired"}
