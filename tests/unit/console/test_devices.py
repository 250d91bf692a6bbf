"""Data of devices, from the database, Redis and names of attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from tests.unit.console.browsing import DEVICE, NOW, FakePorts, empty_redis
from tracker.console.devices import BadRequest, Devices
from tracker.errors import Unavailable
from tracker.keys import DEVICE_MODELS
from tracker.storage.reader import LAST, PositionReader, QueryFailed, Search, Track
from tracker.vendors.teltonika.naming import Naming

EMPTY: dict[str, Any] = dict.fromkeys(LAST)


@define(eq=False)
class FakePositions(PositionReader):
    """Reader of rows that the test provides."""

    rows: list[dict[str, Any]] = field(factory=list)
    queries: list[Any] = field(factory=list)
    failure: QueryFailed | None = None

    async def devices(self, search: Search) -> list[dict[str, Any]]:
        self.queries.append(search)
        return self.rows[: search.limit]

    async def device(self, device_id: str) -> dict[str, Any] | None:
        if self.failure is not None:
            raise self.failure
        return self.rows[0] if self.rows else None

    async def track(self, device_id: str, since: str, until: str) -> Track:
        self.queries.append((since, until))
        return Track([(1, 41.0, 19.0, None, None)], 1, True)

    def _devices(self, search: Search) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _device(self, device_id: str) -> dict[str, Any] | None:
        raise NotImplementedError

    def _track(self, device_id: str, span: tuple[str, str], limit: int) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


@pytest.fixture
def positions() -> FakePositions:
    return FakePositions()


@pytest.fixture
def devices(positions: FakePositions) -> Devices:
    clock = Clock()
    clock.rightNow = NOW
    redis: Any = empty_redis()
    namings: Any = {"teltonika": Naming({})}
    return Devices(clock, redis, positions=positions, ports=FakePorts(), namings=namings)


def result(coroutine: Any) -> Any:
    """Return the result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the coroutine waits")


def row(attributes: Mapping[str, Any], named: Any = None) -> dict[str, Any]:
    about = {"device_id": DEVICE, "vendor": "teltonika", "latitude": 41.3}
    return {**EMPTY, **about, "attributes": attributes, "named": named, "extra": None}


def test_attributes_have_names_units_and_scaled_values(
    devices: Devices, positions: FakePositions
) -> None:
    positions.rows = [row({"66": 14211, "239": 1})]
    found = result(devices.one(DEVICE))["attributes"]
    assert found == [
        {"id": "66", "name": "External Voltage", "value": 14.211, "unit": "V", "raw": 14211},
        {"id": "239", "name": "Ignition", "value": 1, "text": "ignition on", "raw": 1},
    ]


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (None, ["Geofence Zone 11"]),
        ({}, ["Geofence Zone 11"]),
        ({"widths": {"1": [70]}}, ["Geofence Zone 11"]),
        ({"widths": {"2": [70]}}, [None]),
        ({"widths": "malformed"}, ["Geofence Zone 11"]),
    ],
)
def test_widths_of_the_row_select_the_names_of_attributes(
    devices: Devices, positions: FakePositions, extra: Any, names: list[str | None]
) -> None:
    redis: Any = devices._redis
    redis.replies["HMGET"] = lambda key, _: [b"FMB920" if key == DEVICE_MODELS else None]
    positions.rows = [{**row({"70": 1}), "extra": extra}]
    found = result(devices.one(DEVICE))["attributes"]
    assert [about["name"] for about in found] == names


@pytest.mark.parametrize("error", [Unavailable("gone"), "WRONGTYPE key", "NOPERM no permission"])
def test_devices_are_shown_while_their_connections_are_unknown(
    devices: Devices, positions: FakePositions, error: Any
) -> None:
    redis: Any = devices._redis
    positions.rows = [row({"239": 1})]
    assert result(devices.page("", "id", "", 50))["instances_error"] is None
    assert result(devices.one(DEVICE))["instance_error"] is None
    redis.replies["HMGET"] = error
    page = result(devices.page("", "id", "", 50))
    assert [one["device_id"] for one in page["devices"]] == [DEVICE]
    one = result(devices.one(DEVICE))
    assert (one["position"]["latitude"], one["vendor"]) == (41.3, "teltonika")
    assert one["command_codecs"] == ["12", "14"]
    assert page["instances_error"]
    assert one["instance_error"] == page["instances_error"]


def test_list_shows_the_vendor_of_a_connected_device_without_a_position(
    devices: Devices, positions: FakePositions
) -> None:
    redis: Any = devices._redis
    positions.rows = [row({}), EMPTY | {"device_id": DEVICE}]
    redis.replies["HMGET"] = lambda key, *ids: [b"concox" for _ in ids]
    page = result(devices.page("", "id", "", 50))
    assert [one["vendor"] for one in page["devices"]] == ["teltonika", "concox"]


def test_stored_names_have_precedence_over_built_in_ones(
    devices: Devices, positions: FakePositions
) -> None:
    named = {"Oil pressure": {"id": 66, "value": 3.5, "unit": "bar"}}
    positions.rows = [row({"66": 35}, named)]
    (found,) = result(devices.one(DEVICE))["attributes"]
    assert (found["name"], found["value"], found["unit"]) == ("Oil pressure", 3.5, "bar")


def test_attributes_without_names_come_last_with_their_ids(
    devices: Devices, positions: FakePositions
) -> None:
    positions.rows = [row({"64999": 7, "239": 1, "odd": None})]
    found = result(devices.one(DEVICE))["attributes"]
    assert [(one["id"], one["name"]) for one in found] == [
        ("239", "Ignition"),
        ("64999", None),
        ("odd", None),
    ]


def test_large_numbers_and_bytes_are_shown_exactly(
    devices: Devices, positions: FakePositions
) -> None:
    large = {"__bigint": "13835058055282163712"}
    positions.rows = [row({"64998": large, "64999": {"__buffer_b64": "EQ=="}})]
    found = result(devices.one(DEVICE))["attributes"]
    assert [one["value"] for one in found] == ["13835058055282163712", "base64 EQ=="]


def test_device_without_stored_position_has_no_position_and_no_error(devices: Devices) -> None:
    found = result(devices.one(DEVICE))
    assert (found["position"], found["position_error"], found["attributes"]) == (None, None, [])


def test_data_from_redis_is_shown_while_the_database_is_unavailable(
    devices: Devices, positions: FakePositions
) -> None:
    positions.failure = QueryFailed("not available")
    found = result(devices.one(DEVICE))
    assert (found["position_error"], found["device_id"]) == ("not available", DEVICE)


def moment(number: int) -> str:
    return f"2026-11-30T10:{number // 60:02}:{number % 60:02}.000Z"


def test_pages_are_bounded_and_continue_after_the_previous_one(
    devices: Devices, positions: FakePositions
) -> None:
    positions.rows = [{**row({}), "last_contact": moment(number)} for number in range(200)]
    page = result(devices.page("35", "contact", "", 10_000))
    assert len(page["devices"]) == 100
    result(devices.page("35", "contact", page["after"], 100))
    first, second = positions.queries
    assert (first.text, first.by_contact, first.after, first.limit) == ("35", True, None, 100)
    assert second.after == (moment(99), DEVICE)
    positions.rows = positions.rows[:3]
    assert result(devices.page("", "id", "", 100))["after"] is None


TIME = "2026-11-30T10:00:00.000Z"
TOO_LONG = json.dumps([TIME, "1" * 150])


@pytest.mark.parametrize(
    "after",
    [
        *("x", "5", "null", "[]", "[1]", '["a", 1]', "{}", '{"a": 1, "b": 2}', TOO_LONG),
        *("[" * 5000, "[" * 140, r'["\ud800", "1"]', f'["{TIME}", "\\u0000"]', '["x", "y"]'),
        *(f'["{TIME}", "1", "2"]', f'["{TIME}", ""]', '["2026-02-30T10:00:00.000Z", "1"]', "\0"),
        *('["infinity", "1"]', '["now", "1"]', f'["{TIME}\\n", "1"]', f'[["{TIME}"], "1"]'),
    ],
)
def test_malformed_cursor_is_refused_with_a_database(devices: Devices, after: str) -> None:
    for order in ("id", "contact"):
        with pytest.raises(BadRequest):
            result(devices.page("", order, after, 10))


@pytest.mark.parametrize("cursor", ["x", "-1", "1.0", "1 0", str(1 << 64), "9" * 5000, "٣"])
def test_malformed_cursor_is_refused_without_a_database(cursor: str) -> None:
    redis: Any = empty_redis()
    devices = Devices(Clock(), redis, positions=None, ports=FakePorts(), namings={})
    with pytest.raises(BadRequest):
        result(devices.page("", "id", cursor, 10))
    assert redis.sent == []


def test_unknown_order_of_devices_is_refused(devices: Devices) -> None:
    with pytest.raises(BadRequest):
        result(devices.page("", "speed", "", 10))


def test_track_spans_the_given_hours_and_the_tolerance_of_clocks(
    devices: Devices, positions: FakePositions
) -> None:
    found = result(devices.track(DEVICE, 6))
    assert positions.queries == [("2026-11-18T05:06:40.000Z", "2026-11-19T11:06:40.000Z")]
    assert found == {"points": [(1, 41.0, 19.0, None, None)], "read": 1, "complete": True}
