"""The check of a real server for an append-only file."""

from __future__ import annotations

from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.integration.conftest import Connected
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.waiting import until
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.durability import DurabilityCheck


async def logged(connected: Connected) -> list[str]:
    """Return what the check of a server logs."""
    with capturedLogs() as captured:
        DurabilityCheck(connected.connection).startService()
        # Replies keep their order, so the check has its own by then.
        await connected.connection.execute("PING")
    return [
        f"{event['log_level'].name} {formatEvent(event)}" for event in cast("list[Any]", captured)
    ]


@pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])
@ensureDeferred
async def test_server_without_an_append_only_file_is_warned_of(
    redis: RedisServer, connected: Connected
) -> None:
    assert await logged(connected) == []
    redis.client.config_set("appendfsync", "everysec")
    assert await logged(connected) == []
    redis.client.config_set("appendonly", "no")
    redis.client.config_set("save", "3600 1")
    (line,) = await logged(connected)
    assert line.startswith("warn ")
    assert "Set appendonly yes" in line


@ensureDeferred
async def test_durability_is_unknown_without_permission_for_info(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.config_set("appendonly", "no")
    redis.client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        (line,) = await logged(connected)
    finally:
        redis.client.execute_command("ACL", "SETUSER", "default", "+info")
    assert line.startswith("debug ")


@ensureDeferred
async def test_durability_is_checked_once_redis_is_there(redis: RedisServer) -> None:
    from twisted.internet import reactor

    redis.client.config_set("appendonly", "no")
    connection = RedisConnection(cast(Any, reactor), redis.address, Condition())
    with capturedLogs() as captured:
        DurabilityCheck(connection).startService()
        assert captured == []
        connection.startService()
        await until(lambda: len(captured) > 0, "logged")
        await connection.stopService()
    assert "appendonly no" in str(formatEvent(captured[0]))
