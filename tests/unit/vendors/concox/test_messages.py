"""Contents of messages: heartbeats, texts, data and information."""

from __future__ import annotations

from typing import Any

import pytest

from tracker.vendors.concox.content import READERS, is_acknowledged, read_content
from tracker.vendors.concox.fields import write_imei
from tracker.vendors.concox.frames import Frame
from tracker.vendors.concox.readings import Reading


def reading_of(number: int, content: bytes, extended: bool = False) -> Reading:
    reading = read_content(Frame(number, content, 1, extended))
    assert reading is not None
    return reading


def information(kind: int, data: bytes) -> Reading:
    return reading_of(0x94, bytes((kind,)) + data, extended=True)


def test_longer_heartbeat_keeps_the_bytes_that_follow() -> None:
    attributes = reading_of(0x13, bytes.fromhex("40040400010102")).attributes
    assert attributes["voltage_level"] == 4
    assert attributes["trailing"] == {"__buffer_b64": "AQI="}


def test_heartbeat_of_another_layout_keeps_its_bytes() -> None:
    # A voltage in two bytes stands where other devices have level and signal.
    attributes = reading_of(0x13, bytes.fromhex("0604ea0400")).attributes
    assert attributes["acc"] == 1
    assert attributes["trailing"] == {"__buffer_b64": "BOoEAA=="}
    assert "alarm" not in attributes


@pytest.mark.parametrize("content", ["44", "4401", "440104"])
def test_shorter_heartbeat_is_read(content: str) -> None:
    assert reading_of(0x13, bytes.fromhex(content)).attributes["charging"] == 1


@pytest.mark.parametrize("number", [0x13, 0x23])
def test_heartbeat_without_content_has_no_layout(number: int) -> None:
    assert read_content(Frame(number, b"", 1)) is None


@pytest.mark.parametrize(
    ("kind", "data", "attributes"),
    [
        (0x00, "049f", {"external_voltage": 11.83}),
        (0x05, "07", {"door_open": 1, "door_trigger": 1, "input_level": 1}),
        (0x1E, "000000d5000002ee", {"temperature": 21.3, "humidity": 75.0}),
        (0x1E, "fffffff6000002ee", {"temperature": -1.0, "humidity": 75.0}),
    ],
)
def test_information_is_laid_out(kind: int, data: str, attributes: dict[str, Any]) -> None:
    reading = information(kind, bytes.fromhex(data))
    assert reading.attributes == {"information": kind} | attributes
    assert reading.data == bytes.fromhex(data)


@pytest.mark.parametrize("kind", [0x00, 0x05, 0x09, 0x0A, 0x0B, 0x1B, 0x1E, 0x7F])
def test_information_without_a_layout_is_kept(kind: int) -> None:
    reading = information(kind, b"\x01\x02\x03")
    assert reading.attributes == {"information": kind}
    assert reading.data == b"\x01\x02\x03"


def test_information_with_letters_for_digits_is_kept() -> None:
    assert information(0x0A, b"\x03" + 25 * b"\xaa").attributes == {"information": 0x0A}


def test_information_with_the_imei_of_its_device_is_laid_out() -> None:
    imei = write_imei("359857080539083")
    content = b"\x0a" + imei + bytes.fromhex("07060104900402788950301217070401538f")
    reading = read_content(Frame(0x94, content, 1, extended=True), imei)
    assert reading is not None
    assert reading.attributes["imei"] == "359857080539083"
    assert reading.attributes["iccid"] == "8950301217070401538"


def test_information_of_a_door_may_have_a_date() -> None:
    reading = information(0x05, bytes.fromhex("16090908081c03"))
    assert reading.attributes["door_open"] == 1
    assert reading.date == bytes.fromhex("16090908081c")


def test_text_of_information_is_a_text() -> None:
    assert information(0x04, b"ALM1=C5;DYD=01;").text == "ALM1=C5;DYD=01;"


def test_information_in_a_short_frame_is_a_voltage() -> None:
    assert reading_of(0x94, b"\x04\xeb").attributes == {"external_voltage": 12.59}
    assert read_content(Frame(0x94, b"\x00\x04\xeb", 1)) is None


def test_text_with_control_characters_is_data() -> None:
    reading = reading_of(0x9B, b"\x03a\x00b")
    assert (reading.text, reading.data) == (None, b"a\x00b")
    assert reading_of(0x9B, b"\x03a\tb\r\n").text == "a\tb\r\n"


def test_text_in_an_unknown_encoding_is_data() -> None:
    reading = reading_of(0x21, bytes(4) + b"\x03abc", extended=True)
    assert (reading.text, reading.data) == (None, b"abc")


def test_half_a_surrogate_pair_is_data() -> None:
    assert reading_of(0x21, bytes(4) + b"\x02\xd8\x00", extended=True).text is None


@pytest.mark.parametrize("content", ["", "03", "ff00000000414243", "0300000000"])
def test_string_whose_length_is_wrong_has_no_layout(content: str) -> None:
    assert read_content(Frame(0x15, bytes.fromhex(content), 1)) is None


def test_bytes_after_a_string_are_kept() -> None:
    attributes = reading_of(0x15, bytes.fromhex("0400000000ff000000")).attributes
    assert attributes["trailing"] == {"__buffer_b64": "/wAAAA=="}


def test_number_of_access_points_must_agree_with_the_length() -> None:
    content = bytes.fromhex("11030b011c1f013604") + bytes(42) + b"\xff\x01" + bytes(7)
    assert len(reading_of(0x2C, content).attributes["access_points"]) == 1
    for other in (content + b"\0", content[:-1]):
        assert read_content(Frame(0x2C, other, 1)) is None


@pytest.mark.parametrize(("extended", "number"), [(e, n) for e in READERS for n in READERS[e]])
def test_any_content_of_a_number_is_read_or_refused(extended: bool, number: int) -> None:
    for length in range(120):
        for byte in (b"\x00", b"\x01", b"\x80", b"\xff"):
            read_content(Frame(number, length * byte, 1, extended))


@pytest.mark.parametrize(
    ("number", "acknowledged"),
    [
        *((number, True) for number in (0x16, 0x19, 0x26, 0x27, 0x32, 0xA4, 0xA5, 0x5E, 0x95)),
        *((number, False) for number in (0x12, 0x22, 0xA0, 0x28, 0x2C, 0x94, 0x15, 0x21, 0x9B)),
        *((number, False) for number in (0x17, 0x2A, 0x80, 0x81, 0x82, 0x97)),
    ],
)
def test_alarms_and_unknown_numbers_are_acknowledged(number: int, acknowledged: bool) -> None:
    assert is_acknowledged(Frame(number, b"\x01", 1)) is acknowledged


def test_acknowledgement_is_not_acknowledged() -> None:
    assert not is_acknowledged(Frame(0x5E, b"", 1))
