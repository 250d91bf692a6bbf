"""Tests of the registration of devices during outages of Redis."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from tests.unit.fakes import FakeRedis
from tracker.commands.registration import MAX_RETRY_DELAY, MIN_RETRY_DELAY, DeviceRegistration
from tracker.errors import Unavailable


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis(replies={"HMGET": lambda _, *devices: [None] * len(devices)})


@pytest.fixture
def registration(clock: Clock, redis: FakeRedis) -> DeviceRegistration:
    registration = DeviceRegistration(clock, cast("Any", redis), "one", lambda *moved: None)
    registration.startService()
    return registration


def sent(redis: FakeRedis) -> list[str]:
    """Return and clear the devices in the calls that were sent."""
    asked, redis.sent = redis.sent, []
    return [device for name, *more in asked if name == "EVALSHA" for device in more[4::3]]


def test_devices_are_registered_at_once_when_an_outage_ends(
    clock: Clock, redis: FakeRedis, registration: DeviceRegistration
) -> None:
    redis.connected = False
    registration.register("a")
    clock.pump([1.0] * 60)
    registration.register("b")
    redis.reconnect()
    assert sent(redis) == ["a", "b"]
    clock.advance(MAX_RETRY_DELAY)
    assert sent(redis) == []


def test_devices_are_registered_again_when_a_call_has_failed(
    clock: Clock, redis: FakeRedis, registration: DeviceRegistration
) -> None:
    assert redis.replies is not None
    redis.replies["EVALSHA"] = Unavailable("lost")
    registration.register("a")
    clock.advance(0)
    assert sent(redis) == ["a"]
    del redis.replies["EVALSHA"]
    clock.advance(MIN_RETRY_DELAY)
    assert sent(redis) == ["a"]


def test_nothing_is_registered_after_a_stop_in_an_outage(
    clock: Clock, redis: FakeRedis, registration: DeviceRegistration
) -> None:
    redis.connected = False
    registration.register("a")
    clock.advance(1)
    registration.stopService()
    redis.reconnect()
    clock.advance(MAX_RETRY_DELAY)
    assert sent(redis) == []


@pytest.mark.parametrize(("devices", "lines"), [([], 0), (["a"], 1)])
def test_stop_in_an_outage_reports_devices_only_if_there_are_any(
    redis: FakeRedis, registration: DeviceRegistration, devices: list[str], lines: int
) -> None:
    assert redis.replies is not None
    redis.replies["EVALSHA"] = Unavailable("down")
    for device_id in devices:
        registration.register(device_id)
    with capturedLogs() as logs:
        registration.stopService()
    assert len(logs) == lines
