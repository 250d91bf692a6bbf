"""Tests of the streams of commands, on a real Redis."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from tests.integration.commands.ledgers import (
    append_entry,
    outbound,
    set_heartbeats,
)
from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tracker.commands.streams import outbound_streams, remove_empty_outbound

DEAD = outbound("dead")


@ensureDeferred
async def test_list_of_outbound_streams_contains_only_streams_of_instances(
    connected: Connected, redis: RedisServer
) -> None:
    names = {f"eu-{number}" for number in range(1500)} | {"a:b", "ü", "*"}
    for name in names:
        append_entry(redis, outbound(name), {"a": "b"})
    redis.client.set(outbound("text"), "none")
    append_entry(redis, "commands:responses", {"a": "b"})
    assert {name async for name in outbound_streams(connected.connection)} == names


@ensureDeferred
async def test_only_an_empty_stream_of_a_dead_instance_is_removed(
    connected: Connected, redis: RedisServer
) -> None:
    append_entry(redis, DEAD, {"a": "b"})
    assert not await remove_empty_outbound(connected.connection, "dead")
    redis.client.xtrim(DEAD, maxlen=0)
    set_heartbeats(redis, "dead")
    assert not await remove_empty_outbound(connected.connection, "dead")
    redis.client.delete("instance:heartbeat:dead")
    assert await remove_empty_outbound(connected.connection, "dead")
    assert not await remove_empty_outbound(connected.connection, "dead")
