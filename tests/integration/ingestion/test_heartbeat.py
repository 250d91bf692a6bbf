"""The heartbeat of an instance, and a second instance with the same ID."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from attrs import asdict, evolve
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.integration.intercepted import Intercepted
from tests.servers import RedisServer
from tests.waiting import until
from tracker.errors import Unavailable
from tracker.ingestion.heartbeat import INTERVAL, Heartbeat
from tracker.ingestion.identity import Identity
from tracker.log.redis.heartbeats import EXPIRY

KEY = "instance:heartbeat:one"


def own_identity() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


ELSEWHERE = Identity("elsewhere", "another-boot", 17, 4711)


class Instance:
    """A heartbeat whose clock the test advances."""

    def __init__(
        self, connected: Connected, identity: Identity | None = None, connection: Any = None
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.aborted: list[str] = []
        self.owned = 0
        self.heartbeat = Heartbeat(
            self.clock,
            connection or connected.connection,
            "one",
            {},
            on_owned=self._note_ownership,
            abort=self.aborted.append,
            identity=identity,
        )
        self.heartbeat.startService()

    def _note_ownership(self) -> None:
        self.owned += 1


def is_owned(one: Instance) -> Callable[[], int]:
    return lambda: one.owned


def heartbeat_in(redis: RedisServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(redis.client.get(KEY) or b"{}")
    return found


def is_of(redis: RedisServer, identity: Identity) -> bool:
    return asdict(identity).items() <= heartbeat_in(redis).items()


def write_heartbeat(redis: RedisServer, identity: Identity, seconds: int = EXPIRY) -> None:
    """Write the heartbeat of another process."""
    redis.client.set(KEY, json.dumps(asdict(identity)), ex=seconds)


@ensureDeferred
async def test_heartbeat_is_written_at_start_and_deleted_at_stop(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(lambda: is_of(redis, own_identity()), "heartbeat written")
    assert 0 < redis.client.ttl(KEY) <= EXPIRY
    await until(lambda: one.heartbeat.last_renewed == one.clock.seconds(), "its reply")
    await one.heartbeat.stopService()
    assert not redis.client.exists(KEY)
    assert one.owned == 1


@ensureDeferred
async def test_heartbeat_of_a_killed_process_is_replaced_at_once(
    connected: Connected, redis: RedisServer
) -> None:
    write_heartbeat(redis, evolve(own_identity(), began=1))  # an earlier process with this number
    one = Instance(connected)
    await until(lambda: is_of(redis, own_identity()), "replaced")
    assert not one.aborted
    await until(lambda: one.owned, "owned")
    await one.heartbeat.stopService()
    assert one.owned == 1


@ensureDeferred
async def test_live_process_on_this_host_keeps_its_instance_id(
    connected: Connected, redis: RedisServer
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        other_identity = Identity.of(other.pid)
        assert other_identity is not None
        write_heartbeat(redis, other_identity)
        one = Instance(connected)
        await until(lambda: one.aborted, "refused")
        assert one.aborted[0].startswith("another instance has the ID one")
        assert str(other.pid) in one.aborted[0]
        one.clock.advance(INTERVAL)
        await one.heartbeat.stopService()
        assert is_of(redis, other_identity)
        assert one.owned == 0
        other.kill()


@ensureDeferred
async def test_process_on_another_host_keeps_its_id_if_it_renews_its_heartbeat(
    connected: Connected, redis: RedisServer
) -> None:
    write_heartbeat(redis, ELSEWHERE, 80)
    one = Instance(connected)
    await until(lambda: one.heartbeat._ownership._suspect, "suspect found")
    assert is_of(redis, ELSEWHERE)
    write_heartbeat(redis, ELSEWHERE, EXPIRY)
    one.clock.advance(INTERVAL)
    await until(lambda: one.aborted, "refused")
    assert "elsewhere" in one.aborted[0]
    await one.heartbeat.stopService()
    assert is_of(redis, ELSEWHERE)
    assert one.owned == 0


@ensureDeferred
async def test_heartbeat_of_another_host_is_replaced_if_not_renewed(
    connected: Connected, redis: RedisServer
) -> None:
    write_heartbeat(redis, ELSEWHERE, 80)
    one = Instance(connected)
    await until(lambda: one.heartbeat._ownership._suspect, "suspect found")
    assert one.owned == 0
    redis.client.expire(KEY, 80 - INTERVAL)
    one.clock.advance(INTERVAL)
    await until(lambda: is_of(redis, own_identity()), "replaced")
    assert not one.aborted
    await until(lambda: one.owned, "owned")
    await one.heartbeat.stopService()
    assert one.owned == 1


@ensureDeferred
async def test_heartbeat_is_written_again_after_a_flush(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(lambda: is_of(redis, own_identity()), "heartbeat written")
    redis.client.flushall()

    def is_renewed() -> bool:
        one.clock.advance(INTERVAL)
        return is_of(redis, own_identity())

    await until(is_renewed, "written again")
    await one.heartbeat.stopService()
    assert one.owned == 1


@ensureDeferred
async def test_ownership_of_an_instance_id_is_reported_once(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(lambda: one.owned, "owned")
    assert is_of(redis, own_identity())  # written before the report

    def is_renewed() -> bool:
        one.clock.advance(INTERVAL)
        return is_of(redis, own_identity())

    for _ in range(3):
        redis.client.delete(KEY)
        await until(is_renewed, "heartbeat written")
    await one.heartbeat.stopService()
    assert one.owned == 1


@ensureDeferred
async def test_each_later_process_of_an_instance_id_reports_ownership(
    connected: Connected, redis: RedisServer
) -> None:
    for _ in range(2):
        one = Instance(connected)  # the second one finds the heartbeat of its own process
        await until(is_owned(one), "owned")
        assert one.owned == 1
        assert not one.aborted
    redis.client.delete(KEY)


@ensureDeferred
async def test_ownership_of_an_instance_id_is_reported_when_redis_connects(
    connected: Connected, redis: RedisServer
) -> None:
    redis.kill()
    await until(lambda: not connected.connection.connected, "disconnected")
    one = Instance(connected)
    one.clock.advance(2 * INTERVAL)
    assert one.owned == 0
    redis.start()
    await until(lambda: one.owned, "owned")
    redis.kill()
    await until(lambda: not connected.connection.connected, "disconnected")
    one.clock.advance(INTERVAL)
    redis.start()
    await connected.usable()
    redis.client.delete(KEY)
    one.clock.advance(INTERVAL)
    await until(lambda: is_of(redis, own_identity()), "heartbeat written")
    await one.heartbeat.stopService()
    assert one.owned == 1


def failing(connected: Connected, number: int) -> Intercepted:
    """Return a connection that loses one command: the first, the second or the third one."""
    left = number

    def lose(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Unavailable("lost")

    return Intercepted(connected.connection, lose)


@ensureDeferred
@pytest.mark.parametrize(
    "number",
    [1, 2, 3],
)
async def test_ownership_is_reported_once_if_any_command_of_the_first_attempt_is_lost(
    number: int, connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected, connection=failing(connected, number))

    def owned() -> int:
        one.clock.advance(INTERVAL)
        return one.owned

    await until(owned, "owned", timeout=3)
    await until(lambda: is_of(redis, own_identity()), "heartbeat written")
    assert one.owned == 1
    assert not one.aborted
    await one.heartbeat.stopService()


@ensureDeferred
async def test_process_that_hung_while_another_took_its_id_gives_up(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(is_owned(one), "owned")
    write_heartbeat(redis, ELSEWHERE)
    one.clock.advance(INTERVAL)
    await until(lambda: one.aborted, "given up")
    assert "elsewhere" in one.aborted[0]
    await one.heartbeat.stopService()
    assert is_of(redis, ELSEWHERE)


@ensureDeferred
async def test_process_that_proc_hides_is_assumed_to_be_live(
    connected: Connected, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        other_identity = Identity.of(other.pid)
        assert other_identity is not None
        write_heartbeat(redis, other_identity)
        identity = own_identity()
        # This happens if /proc is mounted with hidepid and the other process has another user.
        hidden = Mock(side_effect=FileNotFoundError)
        monkeypatch.setattr("tracker.ingestion.identity.status", hidden)
        one = Instance(connected, identity)
        await until(lambda: one.heartbeat._ownership._suspect, "suspect found")
        assert is_of(redis, other_identity)
        write_heartbeat(redis, other_identity)  # the heartbeat is renewed
        one.clock.advance(INTERVAL)
        await until(lambda: one.aborted, "given up")
        assert not one.owned
        other.kill()
    await one.heartbeat.stopService()
