"""The connection to Redis: through restarts, hangs and wrong passwords."""

from __future__ import annotations

from pathlib import Path

import pytest
import valkey
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.servers import RedisServer, free_port
from tests.waiting import until
from tracker.streams.address import RedisAddress
from tracker.streams.connection import Refused, Unavailable


@ensureDeferred
async def test_commands_are_answered_with_bytes_and_numbers(connected: Connected) -> None:
    execute = connected.connection.execute
    assert await execute("SET", "imei", "356307042441013") == b"OK"
    assert await execute("GET", "imei") == b"356307042441013"
    assert await execute("INCRBY", "count", 5) == 5
    with pytest.raises(Refused):
        await execute("INCRBY", "imei", "x")


@ensureDeferred
async def test_a_command_under_way_fails_when_redis_dies_and_later_ones_at_once(
    connected: Connected, redis: RedisServer
) -> None:
    redis.suspend()
    under_way = connected.connection.execute("PING")
    redis.kill()
    with pytest.raises(Unavailable):
        await under_way
    await until(lambda: not connected.connection.connected, "disconnected")
    with pytest.raises(Unavailable):
        await connected.connection.execute("PING")
    assert connected.reports[-1] is not None
    assert str(redis.address) in connected.reports[-1]


@ensureDeferred
async def test_the_connection_comes_back_with_redis(
    connected: Connected, redis: RedisServer
) -> None:
    redis.kill()
    await until(lambda: not connected.connection.connected, "disconnected")
    redis.start()
    await connected.connection.when_connected()
    assert connected.reports[-1] is None
    assert await connected.connection.execute("PING") == b"PONG"


@ensureDeferred
async def test_a_server_that_hangs_counts_as_lost(redis: RedisServer) -> None:
    connected = Connected(redis.address, reply_timeout=0.2)
    await connected.usable()
    redis.suspend()
    with pytest.raises(Unavailable):
        await connected.connection.execute("PING")
    await until(lambda: not connected.connection.connected, "disconnected")
    redis.resume()
    await connected.usable()
    await connected.connection.stopService()


@ensureDeferred
async def test_without_a_server_it_says_so_and_keeps_trying(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    connected = Connected(server.address)
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert "refused" in (connected.reports[0] or "")
    server.start()
    await connected.usable()
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_a_wrong_password_is_told_and_tried_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--requirepass", "right")
    server.start()
    address = RedisAddress.from_url(f"redis://:wrong@127.0.0.1:{server.port}/0")
    connected = Connected(address)
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert "auth" in (connected.reports[0] or "")
    assert "wrong" not in (connected.reports[0] or "")
    valkey.Valkey(port=server.port, password="right").config_set("requirepass", "wrong")
    await connected.usable()
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_a_missing_password_is_not_taken_for_a_connection(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--requirepass", "secret")
    server.start()
    connected = Connected(server.address)
    await until(lambda: connected.reports, "a report")
    assert "NOAUTH" in (connected.reports[0] or "")
    assert not connected.connection.connected
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_user_database_and_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    server = RedisServer(tmp_path / "redis", "--unixsocket", str(socket))
    server.start()
    server.client.acl_setuser(
        "ingest", enabled=True, passwords=["+p@ss"], commands=["+@all"], keys="*"
    )
    connected = Connected(RedisAddress.from_url(f"unix://ingest:p%40ss@{socket}?db=3"))
    await connected.usable()
    await connected.connection.execute("SET", "here", "1")
    assert server.client.info("keyspace").keys() == {"db3"}
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_a_stop_while_nothing_answers_is_immediate() -> None:
    connected = Connected(RedisAddress(host="127.0.0.1", port=free_port()))
    await until(lambda: connected.reports, "a failed attempt")
    waiting = connected.connection.when_connected()
    await connected.connection.stopService()
    with pytest.raises(Unavailable):
        await waiting
