"""The connection to a real Redis, through restarts, hangs and failed logins."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import valkey
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.proxy import Proxy
from tests.servers import RedisServer, Sentinel, free_port
from tests.waiting import until
from tracker.errors import Refused, Unavailable
from tracker.redis.address import RedisAddress


@ensureDeferred
async def test_replies_are_returned_as_bytes_and_numbers(connected: Connected) -> None:
    execute = connected.connection.execute
    assert await execute("SET", "imei", "356307042441013") == b"OK"
    assert await execute("GET", "imei") == b"356307042441013"
    assert await execute("INCRBY", "count", 5) == 5
    with pytest.raises(Refused):
        await execute("INCRBY", "imei", "x")


@ensureDeferred
async def test_commands_fail_when_redis_is_killed(connected: Connected, redis: RedisServer) -> None:
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
async def test_connection_is_restored_when_redis_is_back(
    connected: Connected, redis: RedisServer
) -> None:
    redis.kill()
    await until(lambda: not connected.connection.connected, "disconnected")
    redis.start()
    await connected.connection.when_connected()
    assert connected.reports[-1] is None
    assert await connected.connection.execute("PING") == b"PONG"


@ensureDeferred
async def test_hanging_server_fails_the_command_under_way(redis: RedisServer) -> None:
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
async def test_missing_server_is_reported_and_retried(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    connected = Connected(server.address)
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert "refused" in (connected.reports[0] or "")
    server.start()
    await connected.usable()
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_wrong_password_is_reported_and_retried(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--requirepass", "right")
    server.start()
    address = RedisAddress.from_url(f"redis://:wrong@127.0.0.1:{server.port}/0")
    connected = Connected(address)
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert "login failed" in (connected.reports[0] or "")
    assert "wrong" not in (connected.reports[0] or "")
    valkey.Valkey(port=server.port, password="right").config_set("requirepass", "wrong")
    await connected.usable()
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_server_that_requires_a_password_is_not_usable_without_one(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--requirepass", "secret")
    server.start()
    connected = Connected(server.address)
    await until(lambda: connected.reports, "a report")
    assert "NOAUTH" in (connected.reports[0] or "")
    assert not connected.connection.connected
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_user_database_and_unix_socket_of_the_url_are_used(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path / "redis", "--unixsocket", str(path))
    server.start()
    server.client.acl_setuser(
        "ingest", enabled=True, passwords=["+p@ss"], commands=["+@all"], keys="*"
    )
    connected = Connected(RedisAddress.from_url(f"unix://ingest:p%40ss@{path}?db=3"))
    await connected.usable()
    await connected.connection.execute("SET", "here", "1")
    assert server.client.info("keyspace").keys() == {"db3"}
    await connected.connection.stopService()
    server.kill()


@ensureDeferred
async def test_stop_without_a_server_is_immediate() -> None:
    connected = Connected(RedisAddress(host="127.0.0.1", port=free_port()))
    await until(lambda: connected.reports, "a failed attempt")
    waiting = connected.connection.when_connected()
    await connected.connection.stopService()
    with pytest.raises(Unavailable):
        await waiting


@ensureDeferred
async def test_idle_connection_notices_a_hanging_server(redis: RedisServer) -> None:
    connected = Connected(redis.address, reply_timeout=0.2)
    await connected.usable()
    redis.suspend()
    await until(lambda: not connected.connection.connected, "disconnected")
    assert "no reply within 200ms" in (connected.reports[-1] or "")
    redis.resume()
    await connected.usable()
    await connected.connection.stopService()


@ensureDeferred
async def test_loading_server_is_retried_until_it_is_usable(redis: RedisServer) -> None:
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(2500):
        pipeline.set(f"key-{number}", "")
    pipeline.execute()
    redis.kill()
    # The server sleeps 0.5 ms after each command of its log, and replies after each 1,024.
    redis.extra = ("--key-load-delay", "500")
    redis.start(wait=False)
    connected = Connected(redis.address)
    await until(lambda: "LOADING" in " ".join(map(str, connected.reports)), "LOADING is reported")
    assert None not in connected.reports
    await connected.usable()
    assert await connected.connection.execute("DBSIZE") == 2500
    await connected.connection.stopService()


@ensureDeferred
async def test_connect_timeout_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracker.redis.connection.CONNECT_TIMEOUT", 0.3)
    with ExitStack() as stack:
        # When the backlog is full, the kernel drops further connection requests.
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listening.getsockname()[1]
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        connected = Connected(RedisAddress(host="127.0.0.1", port=port))
        await until(lambda: connected.reports, "a failed attempt")
        assert "the connection timed out" in (connected.reports[0] or "")
        await connected.connection.stopService()


@pytest.mark.parametrize("old", [True, False], ids=["all connections", "new connections only"])
@ensureDeferred
async def test_connection_recovers_from_a_stalled_network(redis: RedisServer, old: bool) -> None:
    proxy = Proxy(redis.port, backlog=1)
    connected = Connected(RedisAddress(host="127.0.0.1", port=proxy.port), reply_timeout=0.5)
    await connected.usable()
    proxy.stall(deaf=True)
    await until(lambda: not connected.connection.connected, "disconnected")
    assert "no reply within 500ms" in (connected.reports[-1] or "")
    proxy.heal(forward_old=old)
    await connected.usable()
    await connected.connection.stopService()
    proxy.close()


# Masters and replicas.


@ensureDeferred
async def test_replica_is_not_usable_until_it_is_promoted(redis: RedisServer) -> None:
    redis.client.replicaof("127.0.0.1", free_port())
    connected = Connected(redis.address)
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    assert set(connected.reports) == {f"a read-only replica ({redis.address})"}
    redis.client.replicaof("NO", "ONE")
    await connected.usable()
    await connected.connection.stopService()


@ensureDeferred
async def test_write_refused_by_a_demoted_master_closes_the_connection(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.replicaof("127.0.0.1", free_port())
    with pytest.raises(Unavailable):
        await connected.connection.execute("SET", "imei", "356307042441013")
    await until(lambda: not connected.connection.connected, "disconnected")
    await until(lambda: len(connected.reports) > 2, "a retry")
    assert "a read-only replica" in (connected.reports[-1] or "")
    redis.client.replicaof("NO", "ONE")
    await connected.usable()


@ensureDeferred
async def test_script_refused_by_a_demoted_master_closes_the_connection(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.replicaof("127.0.0.1", free_port())
    with pytest.raises(Unavailable):
        await connected.connection.execute("EVAL", "redis.call('SET', KEYS[1], '1')", 1, "key")
    redis.client.replicaof("NO", "ONE")
    await connected.connection.when_connected()


@ensureDeferred
async def test_idle_connection_notices_a_demoted_master(
    connected: Connected, redis: RedisServer
) -> None:
    redis.client.replicaof("127.0.0.1", free_port())
    await until(lambda: not connected.connection.connected, "disconnected")
    assert "a read-only replica" in (connected.reports[-1] or "")


@ensureDeferred
async def test_user_without_permission_for_role_is_served(redis: RedisServer) -> None:
    redis.client.acl_setuser(
        "ingest", enabled=True, passwords=["+secret"], commands=["+@all", "-role"], keys="*"
    )
    connected = Connected(RedisAddress.from_url(f"redis://ingest:secret@127.0.0.1:{redis.port}"))
    await connected.usable()
    with pytest.raises(Refused, match="NOPERM"):
        await connected.connection.execute("ROLE")
    await connected.connection.stopService()


@ensureDeferred
async def test_sentinel_in_place_of_a_server_is_refused(tmp_path: Path, redis: RedisServer) -> None:
    sentinel = Sentinel(tmp_path / "sentinel", redis)
    sentinel.start()
    connected = Connected(RedisAddress(host="127.0.0.1", port=sentinel.port))
    await until(lambda: connected.reports, "a report")
    assert "not a Redis server: its role is sentinel" in (connected.reports[0] or "")
    await connected.connection.stopService()
    sentinel.kill()


@ensureDeferred
async def test_error_does_not_quote_the_password(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = RedisServer(tmp_path / "redis", "--rename-command", "AUTH", "")
    server.start()
    request.addfinalizer(server.kill)
    connected = Connected(RedisAddress.from_url(f"redis://:s3cr3tpass@127.0.0.1:{server.port}"))
    await until(lambda: connected.reports, "a report")
    await connected.connection.stopService()
    assert "unknown command" in str(connected.reports)
    assert "s3cr3tpass" not in str(connected.reports)
