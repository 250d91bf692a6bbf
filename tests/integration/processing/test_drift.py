"""Streams that are written, as a processor looks for their readers on a real server."""

from __future__ import annotations

import json

from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.keys import PROCESSOR_GROUP
from tracker.observe.health import Condition
from tracker.processing.drift import INTERVAL, DriftGuard

STREAM = "telemetry:teltonika"


@ensureDeferred
async def test_a_stream_that_another_processor_reads_is_none_of_ours(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.set("instance:heartbeat:one", json.dumps({"streams": [STREAM, "positions"]}))
    redis.client.xgroup_create("positions", PROCESSOR_GROUP, "0", mkstream=True)
    redis.client.xreadgroup(PROCESSOR_GROUP, "other", {"positions": ">"})
    clock, reports = Clock(), list[str | None]()
    guard = DriftGuard(
        clock, connected.connection, [STREAM], Condition(reports.append), metrics_registry=None
    )
    guard.startService()
    await until(lambda: len(reports) == 2, "one report at the start, one after the first look")
    assert reports == [None, None]
    redis.client.xgroup_delconsumer("positions", PROCESSOR_GROUP, "other")
    clock.advance(INTERVAL)
    await until(lambda: len(reports) == 3, "the second look")
    assert "positions" in str(reports[2])
    await guard.stopService()
