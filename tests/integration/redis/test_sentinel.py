"""Discovery of the master through real Sentinels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.conftest import Connected
from tests.servers import RedisServer, Sentinel, free_port
from tests.waiting import until
from tracker.redis.address import RedisAddress


@pytest.fixture
def sentinel(tmp_path: Path, redis: RedisServer) -> Iterator[Sentinel]:
    sentinel = Sentinel(tmp_path / "sentinel", redis)
    sentinel.start()
    yield sentinel
    sentinel.kill()


@ensureDeferred
async def test_one_running_sentinel_is_enough_to_find_the_master(
    sentinel: Sentinel, redis: RedisServer
) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/tracker/2"
    connected = Connected(RedisAddress.from_url(url))
    await connected.usable()
    await connected.connection.execute("SET", "here", "1")
    assert redis.client.info("keyspace").keys() == {"db2"}
    await connected.connection.stopService()


@ensureDeferred
async def test_failover_is_followed(tmp_path: Path, redis: RedisServer) -> None:
    replica = RedisServer(tmp_path / "replica")
    replica.start()
    replica.replicate(redis)
    sentinel = Sentinel(tmp_path / "sentinel", redis)
    sentinel.start()
    await until(sentinel.has_replica, "the Sentinel knows the replica")
    connected = Connected(RedisAddress.from_url(sentinel.url))
    await connected.usable()
    redis.kill()
    await until(
        lambda: any(
            f"the master 127.0.0.1:{redis.port}: " in str(one) for one in connected.reports
        ),
        "a report that names the server",
    )
    await connected.connection.when_connected()
    assert (await connected.connection.execute("ROLE"))[0] == b"master"
    await connected.connection.execute("SET", "imei", "356307042441013")
    assert replica.client.get("imei") == b"356307042441013"
    await connected.connection.stopService()
    sentinel.kill()
    replica.kill()


@ensureDeferred
async def test_replaced_master_is_disconnected_before_its_demotion(
    tmp_path: Path, redis: RedisServer
) -> None:
    replica = RedisServer(tmp_path / "replica")
    replica.start()
    replica.replicate(redis)
    sentinel = Sentinel(tmp_path / "sentinel", redis)
    sentinel.start()
    await until(sentinel.has_replica, "the Sentinel knows the replica")
    connected = Connected(RedisAddress.from_url(sentinel.url))
    await connected.usable()
    sentinel.fail_over()
    await until(lambda: len(connected.reports) > 1, "disconnected")
    reason = f"127.0.0.1:{redis.port}: replaced; the master is now 127.0.0.1:{replica.port}"
    assert reason in (connected.reports[1] or "")
    await connected.connection.when_connected()
    await connected.connection.execute("SET", "imei", "356307042441013")
    assert replica.client.get("imei") == b"356307042441013"
    await connected.connection.stopService()
    sentinel.kill()
    replica.kill()


@ensureDeferred
async def test_unknown_master_is_reported_in_one_line(sentinel: Sentinel) -> None:
    dead = free_port()
    url = f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:{dead}/other"
    connected = Connected(RedisAddress.from_url(url))
    await until(lambda: len(connected.reports) > 1, "two failed attempts")
    (reason,) = set(connected.reports)
    assert reason is not None
    assert reason.startswith(
        f"no Sentinel names the master: 127.0.0.1:{sentinel.port}: unknown master other; "
        f"127.0.0.1:{dead}: connection refused"
    )
    assert reason.endswith(f"({url}/0)")
    assert "\n" not in reason
    await connected.connection.stopService()


@ensureDeferred
async def test_sentinels_and_servers_may_have_different_passwords(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--requirepass", "right")
    server.start()
    lines = ("requirepass watch", f"sentinel auth-pass {Sentinel.NAME} right")
    sentinel = Sentinel(tmp_path / "sentinel", server, *lines)
    sentinel.start()
    url = f"redis+sentinel://:right@127.0.0.1:{sentinel.port}/tracker"
    refused = Connected(RedisAddress.from_url(url))
    wrong = Connected(RedisAddress.from_url(f"{url}?sentinel_password=guess"))
    connected = Connected(RedisAddress.from_url(f"{url}?sentinel_password=watch"))
    await connected.usable()
    await until(lambda: refused.reports and wrong.reports, "reports")
    assert "NOAUTH" in (refused.reports[0] or "")
    assert "WRONGPASS" in (wrong.reports[0] or "")
    assert "guess" not in (wrong.reports[0] or "")
    for one in (refused, wrong, connected):
        await one.connection.stopService()
    sentinel.kill()
    server.kill()


@ensureDeferred
async def test_stop_with_a_hanging_sentinel_is_immediate(tmp_path: Path) -> None:
    hanging = RedisServer(tmp_path / "hanging")
    hanging.start()
    hanging.suspend()
    url = f"redis+sentinel://127.0.0.1:{hanging.port}/tracker"
    connected = Connected(RedisAddress.from_url(url))
    await until(lambda: connected.reports, "a failed attempt")
    assert "no reply within 2s" in (connected.reports[0] or "")
    await connected.connection.stopService()
    hanging.kill()
