"""The heartbeat of an instance, and what becomes of a second one with the same id."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from attrs import asdict, evolve
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.waiting import until
from tracker.ingestion.heartbeat import EXPIRY, INTERVAL, Heartbeat, Identity

KEY = "instance:heartbeat:one"


def me() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


ELSEWHERE = Identity("elsewhere", "another-boot", 17, 4711)


class Instance:
    """A heartbeat whose time the test tells."""

    def __init__(self, connected: Connected, identity: Identity | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.aborted: list[str] = []
        self.begun = 0
        self.heartbeat = Heartbeat(
            *(self.clock, connected.connection, "one", {}, self._begin),
            *(self.aborted.append, None, identity),
        )
        self.heartbeat.startService()

    def _begin(self) -> None:
        self.begun += 1


def beat(redis: RedisServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(redis.client.get(KEY) or b"{}")
    return found


def is_of(redis: RedisServer, identity: Identity) -> bool:
    return asdict(identity).items() <= beat(redis).items()


def leave(redis: RedisServer, identity: Identity, seconds: int = EXPIRY) -> None:
    """A heartbeat of another process."""
    redis.client.set(KEY, json.dumps(asdict(identity)), ex=seconds)


def test_a_process_is_told_from_all_others() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        found = Identity.of(other.pid)
        assert found is not None
        assert found != me()
        assert found == Identity.of(other.pid)
        assert found.is_beside(me())
        other.kill()
    assert Identity.of(other.pid) != found


@pytest.mark.parametrize("beat", [b"", b"{}", b"[1]", b"no json", b'{"host": "x"}'])
def test_a_heartbeat_need_not_say_whose_it_is(beat: bytes) -> None:
    assert Identity.in_beat(beat) is None


@ensureDeferred
async def test_it_is_there_at_once_and_withdrawn_at_the_end(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(lambda: is_of(redis, me()), "a beat")
    assert 0 < redis.client.ttl(KEY) <= EXPIRY
    await one.heartbeat.stopService()
    assert not redis.client.exists(KEY)


@ensureDeferred
async def test_what_a_killed_process_has_left_is_taken_over_at_once(
    connected: Connected, redis: RedisServer
) -> None:
    leave(redis, evolve(me(), began=1))  # there is a process of that number, but not this one
    one = Instance(connected)
    await until(lambda: is_of(redis, me()), "taken over")
    assert not one.aborted
    await one.heartbeat.stopService()


@ensureDeferred
async def test_a_living_process_on_this_host_keeps_its_id(
    connected: Connected, redis: RedisServer
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs = Identity.of(other.pid)
        assert theirs is not None
        leave(redis, theirs)
        one = Instance(connected)
        await until(lambda: one.aborted, "refused")
        assert one.aborted[0].startswith("another instance has the id one")
        assert str(other.pid) in one.aborted[0]
        await one.heartbeat.stopService()
        assert is_of(redis, theirs)
        other.kill()


@ensureDeferred
async def test_a_heartbeat_from_elsewhere_that_is_renewed_keeps_its_id(
    connected: Connected, redis: RedisServer
) -> None:
    leave(redis, ELSEWHERE, 80)
    one = Instance(connected)
    await until(lambda: one.heartbeat._doubtful, "in doubt")
    assert is_of(redis, ELSEWHERE)
    leave(redis, ELSEWHERE, EXPIRY)
    one.clock.advance(INTERVAL)
    await until(lambda: one.aborted, "refused")
    assert "elsewhere" in one.aborted[0]
    await one.heartbeat.stopService()
    assert is_of(redis, ELSEWHERE)


@ensureDeferred
async def test_a_heartbeat_from_elsewhere_that_is_not_renewed_is_taken_over(
    connected: Connected, redis: RedisServer
) -> None:
    leave(redis, ELSEWHERE, 80)
    one = Instance(connected)
    await until(lambda: one.heartbeat._doubtful, "in doubt")
    redis.client.expire(KEY, 80 - INTERVAL)
    one.clock.advance(INTERVAL)
    await until(lambda: is_of(redis, me()), "taken over")
    assert not one.aborted
    await one.heartbeat.stopService()


@ensureDeferred
async def test_after_a_flush_it_is_there_again(connected: Connected, redis: RedisServer) -> None:
    one = Instance(connected)
    await until(lambda: is_of(redis, me()), "a beat")
    redis.client.flushall()
    one.clock.advance(INTERVAL)
    await until(lambda: is_of(redis, me()), "again")
    await one.heartbeat.stopService()


@ensureDeferred
async def test_who_has_hung_for_so_long_that_another_one_has_begun_gives_up(
    connected: Connected, redis: RedisServer
) -> None:
    one = Instance(connected)
    await until(lambda: is_of(redis, me()), "a beat")
    leave(redis, ELSEWHERE)
    one.clock.advance(INTERVAL)
    await until(lambda: one.aborted, "given up")
    assert "elsewhere" in one.aborted[0]
    await one.heartbeat.stopService()
    assert is_of(redis, ELSEWHERE)
