"""Detection of unread streams on a real server."""

from __future__ import annotations

import json

from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.keys import PROCESSOR_GROUP
from tracker.observe.health import Condition
from tracker.processing.unread import CHECK_INTERVAL, UnreadStreams

STREAM = "telemetry:teltonika"


@ensureDeferred
async def test_stream_of_another_processor_is_not_reported(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.set("instance:heartbeat:one", json.dumps({"streams": [STREAM, "positions"]}))
    redis.client.xgroup_create("positions", PROCESSOR_GROUP, "0", mkstream=True)
    redis.client.xreadgroup(PROCESSOR_GROUP, "other", {"positions": ">"})
    clock, reports = Clock(), list[str | None]()
    unread = UnreadStreams(
        clock, connected.connection, [STREAM], Condition(reports.append), metrics_registry=None
    )
    unread.startService()
    await until(lambda: len(reports) == 2, "a report at the start and one after the first check")
    assert reports == [None, None]
    redis.client.xgroup_delconsumer("positions", PROCESSOR_GROUP, "other")
    clock.advance(CHECK_INTERVAL)
    await until(lambda: len(reports) == 3, "the second check")
    assert "positions" in str(reports[2])
    await unread.stopService()
