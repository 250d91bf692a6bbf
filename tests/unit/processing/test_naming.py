"""The service that names the attributes of positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from tests.unit.fakes import FakeRedis
from tracker.extra import read_extra
from tracker.interfaces import StoredPosition
from tracker.position import Position
from tracker.processing.naming import Namer, namings_of
from tracker.redis.connection import RedisConnection

MODELS = [b"1", b"FMB640", b"2", b"XYZ", b"3", b"XYZ", b"4", b""]


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


@pytest.fixture
def namer() -> Iterator[Namer]:
    redis = cast(RedisConnection, FakeRedis(replies={"HGETALL": MODELS}))
    namer = Namer(Clock(), redis, namings_of({}, "FMB920"))
    namer.startService()
    yield namer
    namer.stopService()


def named(namer: Namer, device_id: str, attributes: dict[str, Any], extra: str = "") -> list[str]:
    """Return the names of the attributes of a position of this device."""
    position = Position(
        device_id, "2026-11-22T10:00:00.000Z", 41.3, 19.8, 0, 0, 0, 9, 0, 0, attributes
    )
    stored = StoredPosition(position, b"", "teltonika", "8E", "", extra=read_extra(extra or "{}"))
    return sorted(namer.name(stored).named or ())


def test_model_of_the_device_and_widths_of_the_entry_select_names(namer: Namer) -> None:
    attributes = {"25": 850, "70": 200}
    assert named(namer, "1", attributes) == ["Engine Temperature", "PCB Temperature"]
    assert named(namer, "1", attributes, '{"widths":{"2":[25],"1":[70]}}') == ["Engine Temperature"]


def test_device_without_a_model_has_the_default_model(namer: Namer) -> None:
    for device_id in ("4", "5"):
        assert named(namer, device_id, {"25": 850}) == ["BLE Temperature #1"]


def test_default_model_is_not_used_before_the_models_are_read() -> None:
    redis = cast(RedisConnection, FakeRedis(replies={"HGETALL": "NOPERM no permission"}))
    namer = Namer(Clock(), redis, namings_of({}, "FMB920"))
    namer.startService()
    assert named(namer, "5", {"25": 850, "239": 1}) == ["Ignition"]
    namer.stopService()


def test_model_in_no_list_is_logged_once(namer: Namer, events: list[LogEvent]) -> None:
    for device_id in ("2", "3", "2", "1", "5"):
        named(namer, device_id, {"239": 1, "25": 850})
    assert [
        event["model"] for event in events if event["log_namespace"].endswith("naming.Namer")
    ] == ["XYZ"]
    assert named(namer, "2", {"239": 1, "25": 850}) == ["Ignition"]
