"""The stream entries that frames become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.vendors.concox.golden import GOLDEN, IMEI, Golden
from tracker.outcomes import Decoded
from tracker.position import Entry, Position, iso_milliseconds
from tracker.vendors.concox.content import TIME, read_content
from tracker.vendors.concox.frames import Frame, decode_frame
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.positions import entry

NOW = 1_600_000_000.0
ENTRIES = [golden for golden in GOLDEN if golden.number not in (LOGIN, TIME)]
PLACE = ("latitude", "longitude", "altitude", "angle", "speed", "satellites")


def frame_of(golden: Golden) -> Frame:
    outcome = decode_frame(golden.data)
    assert isinstance(outcome, Decoded)
    return outcome.value


def made(frame: Frame, **options: Any) -> Entry:
    return entry(IMEI, frame, read_content(frame), NOW, **options)


@pytest.mark.parametrize("golden", ENTRIES, ids=lambda golden: golden.name)
def test_golden_frame_becomes_its_entry(golden: Golden) -> None:
    one = made(frame_of(golden))
    position = Position.from_payload(one.payload)
    arrival = iso_milliseconds(int(NOW * 1000))
    expected = dict.fromkeys(PLACE) | {"timestamp": arrival, "event": 0} | golden.payload
    if golden.number in (0x19, 0xA5):
        expected["event"] = golden.attributes["alarm"]
    document = json.loads(one.payload)
    assert {name: document[name] for name in expected} == expected
    attributes = dict(position.attributes)
    assert attributes.pop("protocol") == golden.number
    if position.is_message:
        message, type_ = attributes.pop("message"), attributes.pop("message_type")
        assert type_ == golden.number
        if golden.message is not None:
            assert message == golden.message
    assert attributes == golden.attributes
    assert json.loads(one.extra) == golden.extra
    assert (one.ts, one.device_id, one.codec) == (expected["timestamp"], IMEI, "gt06")
