"""Marks of records that are not places, and their counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tracker.clock import ClockRule
from tracker.extra import read_extra
from tracker.interfaces import StoredPosition
from tracker.log.entries import StreamEntry
from tracker.position import Position
from tracker.processing.decoding import EntryDecoder
from tracker.processing.metrics import ProcessMetrics

STREAM = "telemetry:teltonika"
NOW = "2026-11-30T10:00:00.000Z"
TIME = "2026-11-30T09:59:00.000Z"


def milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)


def entry(extra: str = "", appended: str = NOW, **changes: Any) -> StreamEntry:
    fields: dict[str, Any] = {
        "device_id": "356307042441013",
        "timestamp": TIME,
        "latitude": 41.3,
        "longitude": 19.8,
        "altitude": 1,
        "angle": 2,
        "speed": 3,
        "satellites": 9,
        "priority": 0,
        "event": 0,
        "attributes": {"239": 1},
    }
    made = Position(**(fields | changes)).to_entry("8E", extra)
    pairs = ((name, value) for name, value in made._asdict().items() if value)
    content = [part.encode() for part in chain(*pairs)]
    return StreamEntry(STREAM, f"{milliseconds(appended)}-0", content)


class Decoding:
    """A decoder whose clock shows :data:`NOW`."""

    def __init__(self, clocks: ClockRule) -> None:
        clock = Clock()
        clock.advance(milliseconds(NOW) / 1000)
        self.metrics_registry = CollectorRegistry()
        metrics = ProcessMetrics([STREAM], self.metrics_registry)
        self.decoder = EntryDecoder(clock, {STREAM: "teltonika"}, metrics, None, clocks=clocks)

    def stored(self, one: StreamEntry) -> StoredPosition:
        ((_, stored),) = self.decoder.decode([one]).rows
        return stored

    def counts(self) -> dict[str, float]:
        """Return the counts that are not 0, by kind of error or ``fix``."""
        value = self.metrics_registry.get_sample_value
        counts = {
            kind: value("tracker_wrong_clock_records_total", {"kind": kind}) or 0
            for kind in ("ahead", "old", "rollover")
        }
        counts["fix"] = value("tracker_records_without_fix_total") or 0
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
def decoding() -> Decoding:
    return Decoding(ClockRule())


@pytest.mark.parametrize(
    ("changes", "marks", "counts"),
    [
        ({}, {}, {}),
        ({"satellites": 0}, {"fix": False}, {"fix": 1}),
        ({"latitude": 0.0, "longitude": 0.0}, {"fix": False}, {"fix": 1}),
        ({"latitude": 214.7483647}, {"fix": False}, {"fix": 1}),
        ({"extra": '{"fix":false}'}, {"fix": False}, {"fix": 1}),
        ({"extra": '{"fix":true}', "satellites": None}, {"fix": True}, {}),
        ({"extra": '{"fix":true}', "latitude": 91.0}, {"fix": False}, {"fix": 1}),
        ({"timestamp": "2080-01-01T00:00:00.000Z"}, {"clock": "ahead"}, {"ahead": 1}),
        ({"timestamp": "2004-01-01T00:34:43.000Z"}, {"clock": "rollover"}, {"rollover": 1}),
        ({"extra": '{"clock":"old"}'}, {"clock": "old"}, {"old": 1}),
        (
            {"timestamp": "1970-01-01T00:00:00.000Z", "satellites": 0, "extra": '{"a":1}'},
            {"a": 1, "fix": False, "clock": "old"},
            {"fix": 1, "old": 1},
        ),
    ],
)
def test_record_that_is_not_a_place_is_marked_and_counted(
    decoding: Decoding, changes: dict[str, Any], marks: dict[str, Any], counts: dict[str, int]
) -> None:
    stored = decoding.stored(entry(**changes))
    assert json.loads(stored.extra.text or "{}") == marks
    assert stored.is_place is not bool(counts)
    assert decoding.counts() == counts
    assert read_extra(stored.extra.text or "{}").fix is stored.extra.fix


def test_message_is_marked_only_if_its_time_is_wrong(decoding: Decoding) -> None:
    nothing = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites"), None
    )
    about: dict[str, Any] = {**nothing, "attributes": {"message": "hello"}}
    assert decoding.stored(entry(**about)).extra.text == ""
    late = decoding.stored(entry(**about, timestamp="9999-12-31T23:59:59.999Z"))
    assert late.extra.text == '{"clock":"ahead"}'


def test_first_arrival_of_a_moved_entry_decides(decoding: Decoding) -> None:
    years_ago = "2019-11-30T10:00:00.000Z"
    moved = entry(f'{{"arrived":"{years_ago}"}}', timestamp=years_ago)
    stored = decoding.stored(moved)
    assert (stored.received_at, stored.is_place) == (years_ago, True)


def test_settings_of_the_rule_are_used() -> None:
    decoding = Decoding(ClockRule(clock_tolerance=3600, oldest=86_400))
    assert decoding.stored(entry(timestamp="2026-11-30T11:00:00.001Z")).extra.clock == "ahead"
    assert decoding.stored(entry(timestamp="2026-11-29T09:59:59.999Z")).extra.clock == "old"


@pytest.mark.parametrize("appended", ["2026-12-02T10:00:00.000Z", "2099-01-01T00:00:00.000Z"])
def test_clock_of_redis_that_was_ahead_does_not_make_devices_wrong(
    decoding: Decoding, appended: str
) -> None:
    stored = decoding.stored(entry(appended=appended))
    assert (stored.received_at, stored.is_place) == (NOW, True)
    wrong = decoding.stored(entry(appended=appended, timestamp="2080-01-01T00:00:00.000Z"))
    assert not wrong.is_place
    assert decoding.stored(entry(appended=appended, timestamp="2004-01-01T00:00:00.000Z")) == (
        decoding.stored(entry(timestamp="2004-01-01T00:00:00.000Z"))
    )


@pytest.mark.parametrize(
    "timestamp", [TIME, "2004-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"]
)
def test_first_arrival_is_not_after_the_append(decoding: Decoding, timestamp: str) -> None:
    moved = decoding.stored(entry('{"arrived":"9999-12-31T23:59:59.999Z"}', timestamp=timestamp))
    assert (moved.received_at, moved.is_place) == (NOW, timestamp == TIME)
