"""Properties of the ASCII encoding, for arbitrary positions and texts."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tracker.outcomes import Decoded, Rejected
from tracker.position import Position, iso_milliseconds
from tracker.vendors.queclink.encoding import (
    MAX_PLACES,
    Place,
    Sender,
    decode_sack,
    encode_answer,
    encode_fri,
    encode_heartbeat,
)
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.records import text_records
from tracker.vendors.queclink.text import TextFrame

LIMIT = 8192

micro_degrees = st.integers(-180_000_000, 180_000_000)
times = st.integers(0, 4_000_000_000)
places = st.builds(
    Place,
    time=times,
    longitude=micro_degrees.map(lambda one: one / 1e6),
    latitude=micro_degrees.map(lambda one: one / 2e6),
    accuracy=st.integers(0, 50),
    speed=st.integers(0, 9999).map(lambda one: one / 10),
    azimuth=st.integers(0, 359),
    altitude=st.integers(-5000, 90_000).map(lambda one: one / 10),
)
senders = st.builds(
    Sender,
    device_id=st.from_regex(r"\A[0-9]{15}\Z|\A[A-F][0-9A-F]{13}\Z"),
    count_number=st.integers(0, 0xFFFF),
    time=times,
    name=st.from_regex(r"\A[a-zA-Z0-9 _-]{0,20}\Z"),
    version=st.sampled_from(("060100", "380603", "")),
)


def frame_of(data: bytes) -> TextFrame:
    outcome = decode_frame(data, LIMIT)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(data)
    assert isinstance(outcome.value, TextFrame)
    return outcome.value


@given(senders, st.lists(places, min_size=1, max_size=MAX_PLACES), st.booleans())
def test_positions_of_a_report_are_those_that_were_encoded(
    sender: Sender, sent: list[Place], buffered: bool
) -> None:
    frame = frame_of(encode_fri(sender, sent, buffered=buffered))
    read = text_records(frame, 0.0, 0, max_records=255, message_bytes=LIMIT)
    assert not read.notice
    assert len(read.entries) == len(sent)
    for entry, place in zip(read.entries, sent, strict=True):
        position = Position.from_payload(entry.payload)
        assert position.device_id == sender.device_id
        assert position.longitude == float(f"{place.longitude:.6f}")
        assert position.latitude == float(f"{place.latitude:.6f}")
        assert position.speed == round(place.speed)
        assert position.altitude == round(place.altitude)
        assert position.angle == place.azimuth
        fix = place.accuracy > 0 and not position.longitude == 0 == position.latitude
        assert json.loads(entry.extra)["fix"] is fix
        assert entry.ts == iso_milliseconds(1000 * int(place.time if fix else sender.time))
        assert "raw" not in position.attributes


@given(senders)
def test_heartbeat_and_its_answer_have_the_same_count_number(sender: Sender) -> None:
    frame = frame_of(encode_heartbeat(sender))
    assert frame.is_heartbeat
    assert decode_sack(frame.ack) == (sender.count_number, True)


@given(senders, st.integers(0, 0xFFFE))
def test_answer_repeats_the_serial_number_of_its_command(sender: Sender, serial: int) -> None:
    data = encode_answer(f"AT+GTRTO=gv300,1,,,,,,{serial:04X}$".encode(), sender)
    assert data is not None
    found = frame_of(data).answer
    assert found is not None
    assert found.token == f"{serial:04X}"


@given(st.text(alphabet="+RESPBUFACK:GT0123456789ABCDEF,.-$\0\r\n ", max_size=300).map(str.encode))
def test_decoder_consumes_bytes_or_waits_for_more(data: bytes) -> None:
    if data:
        outcome = decode_frame(data, LIMIT)
        if isinstance(outcome, Decoded | Rejected):
            assert 0 < outcome.used <= len(data)
