"""Codec 7: fields by masks, and invalid coordinates."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import golden_7
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.codec7 import CODEC_ID, Codec7Packet, Codec7Record, decode_codec7
from tracker.vendors.teltonika.envelope import decode_frame

#: Epoch of the codec, 2007, in seconds since 1970.
EPOCH = int(datetime(2007, 1, 1, tzinfo=UTC).timestamp())

Elements = tuple[tuple[int, int], ...]


@attrs.frozen
class Sent:
    """A record in the values of the wire; None for fields without a bit in a mask."""

    seconds: int = 0
    priority: int = 0
    coordinates: tuple[float, float] | None = None
    altitude: int | None = None
    angle: int | None = None
    speed: int | None = None
    satellites: int | None = None
    cell: tuple[int, int] | None = None
    gsm_signal: int | None = None
    operator: int | None = None
    groups: tuple[Elements | None, Elements | None, Elements | None] = (None, None, None)
    gps: bool = False
    """True to add a GPS element even if it is empty."""

    def encode(self) -> bytes:
        fields = [
            None if self.coordinates is None else struct.pack(">ff", *self.coordinates),
            None if self.altitude is None else struct.pack(">H", self.altitude),
            None if self.angle is None else bytes((self.angle,)),
            None if self.speed is None else bytes((self.speed,)),
            None if self.satellites is None else bytes((self.satellites,)),
            None if self.cell is None else struct.pack(">HH", *self.cell),
            None if self.gsm_signal is None else bytes((self.gsm_signal,)),
            None if self.operator is None else struct.pack(">I", self.operator),
        ]
        gps_mask = sum(1 << bit for bit, field in enumerate(fields) if field is not None)
        mask = int(self.gps or gps_mask > 0)
        body = b""
        if mask:
            body += bytes((gps_mask,)) + b"".join(field or b"" for field in fields)
        for bit, (width, group) in enumerate(zip((1, 2, 4), self.groups, strict=True), start=1):
            if group is not None:
                mask |= 1 << bit
                body += bytes((len(group),))
                for element_id, value in group:
                    body += bytes((element_id,)) + value.to_bytes(width, "big")
        time = self.priority << 30 | self.seconds
        return struct.pack(">IB", time, mask) + body

    def expected(self) -> Codec7Record:
        """Return the record that a decoder has to make of it."""
        latitude = longitude = None
        if (
            self.coordinates is not None
            and abs(self.coordinates[0]) <= 90
            and abs(self.coordinates[1]) <= 180
        ):
            latitude, longitude = (round(degrees, 6) for degrees in self.coordinates)
        return Codec7Record(
            timestamp=(EPOCH + self.seconds) * 1000,
            priority=self.priority,
            latitude=latitude,
            longitude=longitude,
            altitude=self.altitude,
            angle=None if self.angle is None else round(self.angle * 360 / 256),
            speed=self.speed,
            satellites=self.satellites,
            cell=self.cell,
            gsm_signal=self.gsm_signal,
            operator=self.operator,
            elements=tuple(
                (element_id, width, value)
                for width, group in zip((1, 2, 4), self.groups, strict=True)
                for element_id, value in group or ()
            ),
        )


def packet(*records: Sent, count: int | None = None) -> bytes:
    """Return the data of a frame with these records."""
    counts = bytes((len(records) if count is None else count,))
    body = b"".join(record.encode() for record in records)
    return bytes((CODEC_ID,)) + counts + body + counts


def only(record: Sent) -> Codec7Record:
    """Return the decoded form of one record."""
    outcome = decode_codec7(packet(record))
    assert isinstance(outcome, Decoded)
    (read,) = outcome.value.records
    return read


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_codec7(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


floats = st.floats(width=32)


def group(width: int) -> st.SearchStrategy[Elements | None]:
    """Return a strategy for an IO group, which may be empty or missing; ids may repeat."""
    elements = st.lists(st.tuples(unsigned(1), unsigned(width)), max_size=3).map(tuple)
    return st.none() | elements


sent = st.builds(
    Sent,
    seconds=st.integers(0, 2**30 - 1),
    priority=st.integers(0, 3),
    coordinates=st.none() | st.tuples(floats, floats),
    altitude=st.none() | unsigned(2),
    angle=st.none() | unsigned(1),
    speed=st.none() | unsigned(1),
    satellites=st.none() | unsigned(1),
    cell=st.none() | st.tuples(unsigned(2), unsigned(2)),
    gsm_signal=st.none() | unsigned(1),
    operator=st.none() | unsigned(4),
    groups=st.tuples(group(1), group(2), group(4)),
    gps=st.booleans(),
)


# A capture.


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(Codec7Record)])
def test_captured_record_is_decoded(number: int, name: str) -> None:
    outcome = decode_codec7(golden_7.DATA)
    assert isinstance(outcome, Decoded)
    read = outcome.value.records[number]
    assert getattr(read, name) == getattr(golden_7.RECORDS[number], name)


def test_captured_frame_is_decoded() -> None:
    assert decode_frame(golden_7.FRAME, 8192) == Decoded(golden_7.DATA, len(golden_7.FRAME))
    expected = Decoded(Codec7Packet(golden_7.RECORDS), len(golden_7.DATA))
    assert decode_codec7(golden_7.DATA) == expected


def test_packet_of_codec_7_truncated_anywhere_is_rejected() -> None:
    for size in range(2, len(golden_7.DATA)):
        rejection(golden_7.DATA[:size])
        if size > 2:
            # With the second count, as in a frame with a consistent length.
            rejection(golden_7.DATA[: size - 1] + golden_7.DATA[-1:])


@pytest.mark.parametrize("stray", [b"\x00", b"\xff", bytes(5)])
def test_stray_bytes_in_a_packet_of_codec_7_are_rejected(stray: bytes) -> None:
    outcome = rejection(golden_7.DATA[:-1] + stray + golden_7.DATA[-1:])
    assert outcome.offset == len(golden_7.DATA) - 1
    assert outcome.reason.startswith("unexpected data after the last record")


@pytest.mark.parametrize("count", [0, 3, 5, 255])
def test_packet_whose_two_counts_of_records_differ_is_rejected(count: int) -> None:
    outcome = rejection(golden_7.DATA[:-1] + bytes((count,)))
    assert outcome.reason == f"record counts differ: 4 before the records, {count} after them"


@pytest.mark.parametrize("count", [5, 255])
def test_packet_of_codec_7_with_fewer_records_than_its_count_is_rejected(count: int) -> None:
    counts = bytes((count,))
    outcome = rejection(golden_7.DATA[:1] + counts + golden_7.DATA[2:-1] + counts)
    assert outcome.offset == len(golden_7.DATA) - 1
    assert f"record 5 of {count}" in outcome.reason


def test_value_of_codec_7_that_extends_into_the_second_count_is_rejected() -> None:
    data = packet(Sent(groups=(((5, 1),), None, None)))
    rejection(data[:-2] + data[-1:])


def test_packet_of_codec_7_without_records_is_decoded() -> None:
    assert decode_codec7(b"\x07\x00\x00") == Decoded(Codec7Packet(()), 3)


# Fields at their limits.


def test_record_may_contain_only_a_time() -> None:
    assert only(Sent(seconds=1)) == Codec7Record(1_167_609_601_000, 0)
    assert only(Sent(seconds=1, gps=True)) == Codec7Record(1_167_609_601_000, 0)


@pytest.mark.parametrize("priority", range(4))
@pytest.mark.parametrize(
    ("seconds", "time"), [(0, 1_167_609_600_000), (2**30 - 1, 2_241_351_423_000)]
)
def test_time_and_priority_share_four_bytes(priority: int, seconds: int, time: int) -> None:
    read = only(Sent(seconds=seconds, priority=priority))
    assert (read.timestamp, read.priority) == (time, priority)


@pytest.mark.parametrize(
    ("wire", "degrees"), [(0, 0), (1, 1), (64, 90), (128, 180), (192, 270), (255, 359)]
)
def test_angle_is_converted_from_256ths_of_a_circle(wire: int, degrees: int) -> None:
    assert only(Sent(angle=wire)).angle == degrees


@pytest.mark.parametrize(
    "coordinates",
    [(0.0, 0.0), (90.0, 180.0), (-90.0, -180.0), (-34.5, -58.25), (89.99999, 0.0), (0.0, -0.125)],
)
def test_coordinates_are_decoded_latitude_first(coordinates: tuple[float, float]) -> None:
    read = only(Sent(coordinates=coordinates))
    assert (read.latitude, read.longitude) == pytest.approx(coordinates, abs=1e-5)


@pytest.mark.parametrize(
    "coordinates",
    [
        (math.nan, math.nan),
        (math.nan, 0.0),
        (0.0, math.nan),
        (math.inf, 0.0),
        (0.0, -math.inf),
        (90.00001, 0.0),
        (-90.00001, 0.0),
        (0.0, 180.00002),
        (0.0, -180.00002),
        (3.4e38, -3.4e38),
    ],
)
def test_invalid_coordinates_are_dropped_and_other_fields_are_kept(
    coordinates: tuple[float, float],
) -> None:
    read = only(Sent(seconds=7, coordinates=coordinates, altitude=12, satellites=3))
    assert (read.latitude, read.longitude) == (None, None)
    assert (read.timestamp, read.altitude, read.satellites) == ((EPOCH + 7) * 1000, 12, 3)


@pytest.mark.parametrize("mask", range(256))
def test_gps_element_is_decoded_for_every_mask(mask: int) -> None:
    chosen = {
        "coordinates": (44.5, 18.25),
        "altitude": 65_535,
        "angle": 128,
        "speed": 255,
        "satellites": 9,
        "cell": (1, 65_535),
        "gsm_signal": 31,
        "operator": 2**32 - 1,
    }
    fields = {name: value for bit, (name, value) in enumerate(chosen.items()) if mask & 1 << bit}
    record = Sent(gps=True, groups=(((240, 1),), None, None), **fields)  # type: ignore[arg-type]
    assert record.encode()[5] == mask
    assert only(record) == record.expected()


@pytest.mark.parametrize("mask", range(16))
def test_record_is_decoded_for_every_mask(mask: int) -> None:
    groups = tuple(((width, 1), (width, 2)) if mask & 1 << bit else None
                   for bit, width in ((1, 1), (2, 2), (3, 4)))  # fmt: skip
    record = Sent(groups=groups, gps=bool(mask & 1))  # type: ignore[arg-type]
    assert record.encode()[4] == mask
    assert only(record) == record.expected()


# Properties.


@given(st.lists(sent, max_size=5))
def test_any_records_of_codec_7_are_decoded(records: list[Sent]) -> None:
    data = packet(*records)
    expected = Codec7Packet(tuple(record.expected() for record in records))
    assert decode_codec7(data) == Decoded(expected, len(data))


@given(sent)
def test_record_of_codec_7_truncated_anywhere_is_rejected(record: Sent) -> None:
    data = packet(record)
    for size in range(2, len(data) - 1):
        rejection(data[:size] + data[-1:])


def check(data: bytes) -> None:
    """Assert that decoding has an outcome, with values that JSON can express."""
    outcome = decode_codec7(data)
    if isinstance(outcome, Rejected):
        rejection(data)
        return
    assert outcome.used == len(data)
    assert len(outcome.value.records) == data[1]
    for record in outcome.value.records:
        assert record.latitude is None or math.isfinite(record.latitude)
        assert record.longitude is None or math.isfinite(record.longitude)


@given(st.binary(min_size=2, max_size=200))
def test_any_bytes_are_decoded_as_codec_7_or_rejected(rest: bytes) -> None:
    check(b"\x07" + rest)


@given(st.integers(0, 4), st.binary(max_size=80))
def test_any_bytes_of_codec_7_between_equal_counts_are_decoded_or_rejected(
    count: int, body: bytes
) -> None:
    check(bytes((CODEC_ID, count)) + body + bytes((count,)))


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_packet_of_codec_7_is_decoded_or_rejected(changes: list[tuple[int, int]]) -> None:
    data = bytearray(golden_7.DATA)
    for offset, byte in changes:
        data[1 + offset % (len(data) - 1)] = byte
    check(bytes(data))
