"""Streams of commands, and those that an instance has left, on a real server."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from tests.integration.commands.ledgers import (
    live,
    outbound,
    put,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tracker.commands.streams import outbound_streams, remove_empty_outbound

DEAD = outbound("dead")


@ensureDeferred
async def test_streams_of_all_instances_are_found_and_nothing_else(
    connected: Connected, redis: RedisServer
) -> None:
    names = {f"eu-{number}" for number in range(1500)} | {"a:b", "ü", "*"}
    for name in names:
        put(redis, outbound(name), {"a": "b"})
    redis.client.set(outbound("text"), "none")
    put(redis, "commands:responses", {"a": "b"})
    assert {name async for name in outbound_streams(connected.connection)} == names


@ensureDeferred
async def test_a_stream_that_is_not_empty_or_not_orphaned_is_not_removed(
    connected: Connected, redis: RedisServer
) -> None:
    put(redis, DEAD, {"a": "b"})
    assert not await remove_empty_outbound(connected.connection, "dead")
    redis.client.xtrim(DEAD, maxlen=0)
    live(redis, "dead")
    assert not await remove_empty_outbound(connected.connection, "dead")
    redis.client.delete("instance:heartbeat:dead")
    assert await remove_empty_outbound(connected.connection, "dead")
    assert not await remove_empty_outbound(connected.connection, "dead")
