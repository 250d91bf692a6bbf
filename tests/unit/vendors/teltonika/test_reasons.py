"""The wording of rejections, which reaches logs: the only tests that hold all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import pytest

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.golden import LOGIN, PANIC, SMALLEST
from tests.unit.vendors.teltonika.golden_7 import DATA as CODEC_7_DATA
from tests.unit.vendors.teltonika.golden_datagrams import OVER_8
from tests.unit.vendors.teltonika.golden_messages import COMMAND_12, COMMAND_14, TWO_PARTS_12
from tracker.outcomes import Fatal, Rejected
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, encode_packet
from tracker.vendors.teltonika.content import decode_data
from tracker.vendors.teltonika.datagram import decode_datagram
from tracker.vendors.teltonika.envelope import decode_frame
from tracker.vendors.teltonika.frames import decode_frames
from tracker.vendors.teltonika.login import decode_login

(RECORD,) = SMALLEST.records
VARIABLE: Final = encode_packet(CODEC_8E, [attrs.evolve(RECORD, variable=((264, b"A"),))])
ELEMENT: Final = encode_packet(CODEC_8, [attrs.evolve(RECORD, elements=((5, 2, 1),))])


def login(data: bytes) -> object:
    return decode_login(data)


def frame(data: bytes) -> object:
    return decode_frame(data, 64)


def packet(data: bytes) -> object:
    return decode_data(data, 2)


def datagram(data: bytes) -> object:
    return decode_datagram(data)


def captured(data: bytes) -> object:
    return decode_frames(data)


#: Decoder, data → reason.
REASONS: Final[list[tuple[Callable[[bytes], object], bytes, str]]] = [
    (login, b"GET /", "not a Teltonika login"),
    (login, b"\x00\x00", "frame before the login: the IMEI must come first"),
    (login, b"\x00\x10", "IMEI length 16 is wrong: an IMEI has 15 digits"),
    (login, b"\x00\x0fX", "IMEI has invalid characters: an IMEI has 15 digits"),
    (frame, b"\x01", "invalid preamble: four zero bytes must come first"),
    (frame, bytes(7) + b"\x02", "data length 2 is too short: the minimum is 3"),
    (frame, bytes(7) + b"\x41", "data length 65 exceeds the limit of 64"),
    (
        frame,
        malformed.BAD_CRC,
        "CRC mismatch: received 0x0000f22b, computed 0x0000f22a",
    ),
    (packet, b"\x08", "data of 1 byte is too short: the minimum is 3"),
    (packet, b"\x55\x00\x00", "unsupported codec 0x55"),
    (packet, b"\x08\x03\x03", "3 records exceed the limit of 2"),
    (packet, b"\x08\x01\x02", "record counts differ: 1 before the records, 2 after them"),
    (packet, b"\x08\x01\x01", "record 1 of 1: extends past the end of the packet"),
    (packet, CODEC_7_DATA[:1] + b"\x01\x01", "record 1 of 1: extends past the end of the packet"),
    (
        packet,
        ELEMENT[:-7] + b"\x02" + ELEMENT[-6:],
        "record 1 of 1: 2-byte elements (count 2) extend past the end of the packet",
    ),
    (
        packet,
        VARIABLE[:-3] + b"\x02" + VARIABLE[-2:],
        "record 1 of 1: element 264 of 2 bytes extends past the end of the packet",
    ),
    (
        packet,
        PANIC.data[:28] + b"\x00\x0f" + PANIC.data[30:],
        "record 1 of 1: element counts differ: 15 in total, 14 in groups",
    ),
    (
        packet,
        SMALLEST.data[:-1] + b"\xff" + SMALLEST.data[-1:],
        "unexpected data after the last record: 1 byte",
    ),
    (packet, b"\x0c\x01\x05", "message of 3 bytes is too short: the minimum is 8"),
    (
        packet,
        COMMAND_12.data[:6] + b"\x08" + COMMAND_12.data[7:],
        "size 8 does not match the payload of 7 bytes",
    ),
    (
        packet,
        TWO_PARTS_12.data[:-2] + b"\x02",
        "9 bytes after message 1 are not another message",
    ),
    (
        packet,
        b"\x0d\x01\x06\x00\x00\x00\x01\x00\x01",
        "time extends past the end of the message",
    ),
    (
        packet,
        COMMAND_14.data[:7] + b"\x13" + COMMAND_14.data[8:],
        "packed IMEI '1352093081452251' is invalid: 0 and 15 digits are required",
    ),
    (datagram, b"\xff", "datagram of 1 byte is too short: the minimum is 26"),
    (datagram, b"\x00\x17" + OVER_8.datagram[2:], "length 23 is too short: the minimum is 24"),
    (
        datagram,
        b"\x00\x3c" + OVER_8.datagram[2:],
        "length 60 does not match the 61 bytes that follow",
    ),
    (
        datagram,
        OVER_8.datagram[:7] + b"\x10" + OVER_8.datagram[8:],
        "IMEI length 16 is wrong: an IMEI has 15 digits",
    ),
    (
        datagram,
        OVER_8.datagram[:8] + b"X" + OVER_8.datagram[9:],
        "IMEI has invalid characters: an IMEI has 15 digits",
    ),
    (captured, b"GET /", "unknown kind of frame: the first bytes match no kind"),
    (captured, LOGIN[:-1], "imei is truncated"),
]


@pytest.mark.parametrize(("decode", "data", "reason"), REASONS, ids=[case[2] for case in REASONS])
def test_malformed_bytes_are_rejected_with_an_exact_reason(
    decode: Callable[[bytes], object], data: bytes, reason: str
) -> None:
    outcome = decode(data)
    assert isinstance(outcome, Rejected | Fatal)
    assert outcome.reason == reason
