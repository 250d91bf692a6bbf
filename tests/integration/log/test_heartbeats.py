"""Heartbeats of instances on a real server."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.ledgers import set_heartbeats
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tracker.log.redis.heartbeats import advertised_streams, living_instances


@ensureDeferred
async def test_thousands_of_live_instances_are_found(
    connected: Connected, redis: RedisServer
) -> None:
    names = {f"eu-{number}" for number in range(2500)} | {"a:b", "ü"}
    set_heartbeats(redis, *names)
    assert await living_instances(connected.connection) == names


@ensureDeferred
@pytest.mark.parametrize(
    "content",
    ['{"streams": null}', '{"streams": 7}', '{"streams": {"a": 1}}', "[]", "7", "", "\xff", "null"],
)
async def test_malformed_heartbeat_advertises_no_streams(
    content: str, connected: Connected, redis: RedisServer
) -> None:
    redis.client.set("instance:heartbeat:eu-1", content.encode("latin-1"))
    redis.client.set("instance:heartbeat:eu-2", '{"streams": ["telemetry:x", 7]}')
    assert await advertised_streams(connected.connection) == {"telemetry:x": "eu-2"}
    assert await living_instances(connected.connection) == {"eu-1", "eu-2"}


@ensureDeferred
async def test_heartbeat_of_another_type_advertises_no_streams(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.hset("instance:heartbeat:eu-1", "a", "b")
    redis.client.set("instance:heartbeat:eu-2", '{"streams": ["telemetry:x"]}')
    assert await advertised_streams(connected.connection) == {"telemetry:x": "eu-2"}
