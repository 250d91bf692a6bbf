"""Commands and their answers."""

from __future__ import annotations

import pytest

from tests.unit.vendors.concox.frames import frame_of
from tests.unit.vendors.concox.golden import ANSWER_15, GOLDEN
from tracker.vendors.concox.commands import (
    MAX_COMMAND_BYTES,
    MAX_FLAG,
    AwaitedAnswer,
    Flags,
    command_frame,
    encode_command,
    possible_answer,
)
from tracker.vendors.concox.content import read_content
from tracker.vendors.concox.frames import Frame, encode_frame
from tracker.vendors.concox.readings import Reading
from tracker.vendors.concox.reports import answer_frame


def reading_of(frame: Frame) -> Reading:
    reading = read_content(frame)
    assert reading is not None
    return reading


@pytest.mark.parametrize(
    ("content", "flag", "serial", "hex_"),
    [
        (b"sos#", 0, 1, "78780E800800000000736F732300016D6A0D0A"),
        (b"DYD,000000#", 0x1A958, 0xA0, "787815800F0001A9584459442C3030303030302300A0DCF10D0A"),
    ],
)
def test_golden_command_is_encoded(content: bytes, flag: int, serial: int, hex_: str) -> None:
    assert encode_frame(command_frame(content, flag, serial)) == bytes.fromhex(hex_)


def test_longest_command_fits_a_frame() -> None:
    made = encode_command(bytes(MAX_COMMAND_BYTES), "", 1, 1)
    assert len(made.data) == 260


def test_longer_command_is_refused() -> None:
    with pytest.raises(ValueError, match="245"):
        encode_command(bytes(MAX_COMMAND_BYTES + 1), "gt06", 1, 1)


def test_command_of_another_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown codec '12'"):
        encode_command(b"STATUS#", "12", 1, 1)


def test_command_and_answer_have_the_same_token() -> None:
    command = encode_command(b"STATUS#", "", 77, 1)
    answer = possible_answer(reading_of(answer_frame("OK", 77, 5)))
    assert command.token == answer.token == "0000004d"
    assert (answer.codec, answer.text) == (command.codec, "OK")


def test_answer_with_flag_0_has_no_token() -> None:
    assert possible_answer(reading_of(answer_frame("OK", 0, 5))).token == ""


def test_flags_differ_and_are_never_0() -> None:
    flags = Flags(MAX_FLAG - 2)
    taken = [flags.take() for _ in range(5)]
    assert taken == [MAX_FLAG - 1, MAX_FLAG, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Command error!", True),
        ("ERROR: Unknown command!", True),
        ("Error!Command not supported", True),
        ("DYD=Success!", False),
        ("Battery:3.9V; command is known", False),
    ],
)
def test_answer_to_an_unknown_command_is_recognised(text: str, unknown: bool) -> None:
    assert possible_answer(reading_of(answer_frame(text, 1, 5))).unknown is unknown


def test_answer_in_utf_16_is_a_text() -> None:
    golden = next(golden for golden in GOLDEN if golden.number == 0x21)
    assert possible_answer(reading_of(frame_of(golden))).text == "Command error!"


def test_answer_that_is_no_text_is_shown_in_ascii() -> None:
    frame = Frame(0x21, bytes(4) + b"\x01a\xff", 1, extended=True)
    assert possible_answer(reading_of(frame)).text == "a\\xff"


def test_padding_of_an_answer_is_removed() -> None:
    content = b"\x08" + bytes(4) + b"OK\0\0" + b"\x00\x02"
    assert possible_answer(reading_of(Frame(0x15, content, 1))).text == "OK"


def test_long_answer_is_cut() -> None:
    text = possible_answer(reading_of(answer_frame("a" * 9000, 1, 5))).text
    assert text.startswith("a" * 8192 + "… (the first 8,192 of 9,000 bytes")


@pytest.mark.parametrize("flag", [0x1A958, 0])
def test_awaited_answer_is_found_behind_other_frames(flag: int) -> None:
    awaited = AwaitedAnswer()
    answer = encode_frame(answer_frame("OK", flag, 5))
    before = b"".join(golden.data for golden in GOLDEN if golden.number not in (0x15, 0x21))
    awaited.expect(encode_command(b"STATUS#", "", 0x1A958, 1).data)
    buffer = bytearray(before)
    assert awaited.find(buffer) is None
    buffer += answer[:-1]
    assert awaited.find(buffer) is None
    buffer += answer[-1:] + ANSWER_15.data
    found = awaited.find(buffer)
    assert found is not None
    assert (found[0], found[1].used) == (len(before), len(answer))


def test_answer_to_another_command_is_not_awaited() -> None:
    awaited = AwaitedAnswer()
    awaited.expect(encode_command(b"STATUS#", "", 5, 1).data)
    assert awaited.find(bytearray(ANSWER_15.data)) is None
    assert not awaited.may_be(reading_of(frame_of(ANSWER_15)))
    assert awaited.may_be(reading_of(answer_frame("OK", 5, 1)))


def test_answer_is_awaited_once() -> None:
    awaited = AwaitedAnswer()
    awaited.expect(encode_command(b"STATUS#", "", 5, 1).data)
    reading = reading_of(answer_frame("OK", 5, 1))
    awaited.arrived(reading)
    assert not awaited.may_be(reading)
    assert awaited.find(bytearray(encode_frame(answer_frame("OK", 5, 1)))) is None


def test_search_for_an_answer_stops_at_bytes_that_are_no_frame() -> None:
    awaited = AwaitedAnswer()
    awaited.expect(encode_command(b"STATUS#", "", 5, 1).data)
    assert awaited.find(bytearray(b"\x00" + encode_frame(answer_frame("OK", 5, 1)))) is None
