"""Commands byte by byte, and the messages that may answer them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden_messages import (
    ANSWER_12,
    ANSWER_14,
    COMMAND_12,
    COMMAND_14,
    INPUTS_12,
    ODD_TIME_13,
    OUTPUTS_12,
    REFUSAL_14,
    SERIAL_13,
    SERIAL_15,
    TWO_PARTS_12,
    GoldenMessage,
    alone,
)
from tracker.command import MAX_TEXT_BYTES, Answer, Command, CommandFrame
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.commands import command_frame, possible_answer
from tracker.vendors.teltonika.envelope import decode_frame
from tracker.vendors.teltonika.messages import (
    COMMAND,
    MESSAGE_CODECS,
    NACK,
    RESPONSE,
    Message,
    Messages,
    decode_messages,
)

IMEI = "352093081452251"
OTHER = "352093081452468"
PHOTO = 0x0D
TYPES = [COMMAND, RESPONSE, PHOTO, NACK, 0x00, 0x0B, 0xFF]


def message_of(
    type_: int, codec_id: int = 0x0C, content: bytes = b"ok", imei: str = IMEI
) -> Message:
    """Return a message of any codec and type."""
    codec = MESSAGE_CODECS[codec_id]
    return Message(
        codec,
        type_,
        content,
        1_699_440_036 if codec.timed else None,
        imei if codec.addressed else None,
    )


def decoded_messages(frame: bytes) -> Messages:
    """Return the messages of a frame."""
    data = decode_frame(frame, 8192, 65536)
    assert isinstance(data, Decoded)
    assert data.used == len(frame)
    messages = decode_messages(data.value)
    assert isinstance(messages, Decoded)
    return messages.value


def decoded_command(frame: bytes) -> Message:
    """Return the message of a frame that has one."""
    messages = decoded_messages(frame)
    assert messages.quantities == (1, 1)
    (message,) = messages.parts
    return message


# Commands.


@pytest.mark.parametrize(
    ("text", "codec", "name", "golden"),
    [
        pytest.param("getinfo", "12", "12", COMMAND_12, id="getinfo"),
        pytest.param("getinfo", "", "12", COMMAND_12, id="default codec is 12"),
        pytest.param("setdigout 11", "12", "12", OUTPUTS_12, id="setdigout"),
        pytest.param("setdigout 11", "", "12", OUTPUTS_12, id="setdigout in the default codec"),
        pytest.param("getver", "14", "14", COMMAND_14, id="getver"),
    ],
)
def test_command_is_encoded_as_its_golden_frame(
    text: str, codec: str, name: str, golden: GoldenMessage
) -> None:
    assert command_frame(IMEI, text.encode(), codec) == CommandFrame(name, golden.frame)


@pytest.mark.parametrize("golden", [COMMAND_12, OUTPUTS_12, COMMAND_14], ids=lambda one: one.name)
def test_content_of_a_golden_command_is_encoded_as_its_frame(golden: GoldenMessage) -> None:
    frame = command_frame(IMEI, golden.message.content, golden.message.codec.name)
    assert frame.data == golden.frame


def test_only_commands_in_codec_14_contain_the_imei() -> None:
    assert command_frame(IMEI, b"x", "12") == command_frame(OTHER, b"x", "12")
    assert command_frame(IMEI, b"x", "14") != command_frame(OTHER, b"x", "14")


@pytest.mark.parametrize(
    "text",
    [
        *("x", "getver\r\n", "\r\n", "\n", "getver\n", " getver ", "\x00", "\t\x7f", "é", "пароль"),
        *("😀", "setparam 2001:inter net;2002:", "x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)),
    ],
    ids=lambda text: ascii(text[:20]),
)
@pytest.mark.parametrize("codec", ["12", "14"])
def test_command_has_exactly_the_bytes_of_its_text(text: str, codec: str) -> None:
    message = decoded_command(command_frame(IMEI, text.encode(), codec).data)
    assert message.content == text.encode()
    assert message.type == COMMAND
    assert message.codec.name == codec
    assert message.imei == (IMEI if codec == "14" else None)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["", "12", "14"]))
def test_any_bytes_are_sent_unchanged(content: bytes, codec: str) -> None:
    frame = command_frame(IMEI, content, codec)
    assert decoded_command(frame.data).content == content
    assert len(frame.data) == len(content) + (28 if frame.codec == "14" else 20)


def test_longest_command_fits_the_limit_of_command_frames() -> None:
    assert len(command_frame(IMEI, b"x" * MAX_TEXT_BYTES, "14").data) < Limits().command_frame_bytes


@pytest.mark.parametrize(
    "codec", ["8", "8E", "13", "15", "0C", "012", "12 ", " ", "1", "x" * 16, "12\n14", "\r\n", "é"]
)
def test_codec_without_commands_is_refused(codec: str) -> None:
    with pytest.raises(ValueError, match="commands use 12 or 14") as caught:
        command_frame(IMEI, b"getver", codec)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("imei", ["", "35209308145225", "3520930814522511", "35209308145225x"])
def test_invalid_imei_is_refused_in_codec_14(imei: str) -> None:
    with pytest.raises(ValueError, match="15 digits") as caught:
        command_frame(imei, b"getver", "14")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("codec", ["12", "14"])
def test_any_valid_command_is_encoded(codec: str) -> None:
    command = Command.checked("a", IMEI, "\x00", "2026-11-22T10:00:00Z", codec=codec)
    assert command_frame(command.device_id, command.content, command.codec).codec == codec


# Answers.


@pytest.mark.parametrize("golden", [ANSWER_12, INPUTS_12], ids=lambda one: one.name)
@pytest.mark.parametrize("imei", [IMEI, OTHER])
def test_answer_in_codec_12_is_accepted_from_any_device(golden: GoldenMessage, imei: str) -> None:
    text = golden.message.content.decode()
    assert possible_answer(imei, decoded_messages(golden.frame)) == Answer("12", text)


def test_answer_in_codec_14_is_accepted_only_from_its_device() -> None:
    answer = possible_answer(IMEI, decoded_messages(ANSWER_14.frame))
    assert answer == Answer("14", ANSWER_14.message.content.decode())
    assert answer.text.startswith("Ver:03.18.14_04 GPS:AXN_5.10_3333 ")
    assert len(answer.text) == 155
    assert possible_answer(OTHER, decoded_messages(ANSWER_14.frame)) is None


@pytest.mark.parametrize("imei", [IMEI, OTHER])
def test_refusal_is_accepted_with_any_imei(imei: str) -> None:
    # A refusal contains either the wrong IMEI of the command or the IMEI of the device.
    assert possible_answer(imei, decoded_messages(REFUSAL_14.frame)) == Answer(
        "14", "", refused=True
    )


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Unknown command or invalid format", True),
        ("WARNING: Unknown Command", True),
        ("unknown command", True),
        ("\r\nERROR: unrecognized command foo", True),
        ("Invalid SMS command", True),
        ("Command not found", True),
        ("command is not supported", True),
        ("Param ID:2004 Text:unknown command", False),
        ("Unknown commander", False),
        ("Commands not found", False),
        ("DOUT1:unknown", False),
        ("INI:2026/1/1", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("codec_id", [0x0C, 0x0E])
def test_answer_to_an_unknown_command_is_recognized(
    text: str, unknown: bool, codec_id: int
) -> None:
    answer = possible_answer(IMEI, alone(message_of(RESPONSE, codec_id, text.encode())))
    assert answer is not None
    assert (answer.text, answer.unknown, answer.refused) == (text, unknown, False)


@pytest.mark.parametrize("golden", [SERIAL_13, ODD_TIME_13, SERIAL_15], ids=lambda one: one.name)
def test_message_of_codec_13_or_15_is_not_an_answer(golden: GoldenMessage) -> None:
    assert possible_answer(golden.message.imei or IMEI, decoded_messages(golden.frame)) is None


@pytest.mark.parametrize("golden", [COMMAND_12, OUTPUTS_12, COMMAND_14], ids=lambda one: one.name)
def test_command_is_not_an_answer(golden: GoldenMessage) -> None:
    assert possible_answer(IMEI, decoded_messages(golden.frame)) is None


@pytest.mark.parametrize("type_", TYPES, ids=hex)
@pytest.mark.parametrize("codec_id", list(MESSAGE_CODECS), ids=hex)
@pytest.mark.parametrize("imei", [IMEI, OTHER])
def test_codec_type_and_imei_decide_if_a_message_is_an_answer(
    type_: int, codec_id: int, imei: str
) -> None:
    expected = {
        (0x0C, RESPONSE, IMEI): Answer("12", "ok"),
        (0x0C, RESPONSE, OTHER): Answer("12", "ok"),  # Codec 12 has no IMEI
        (0x0E, RESPONSE, IMEI): Answer("14", "ok"),
        (0x0E, NACK, IMEI): Answer("14", "ok", refused=True),
        (0x0E, NACK, OTHER): Answer("14", "ok", refused=True),
    }
    answer = possible_answer(IMEI, alone(message_of(type_, codec_id, imei=imei)))
    assert answer == expected.get((codec_id, type_, imei))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"DI1:1\r\n", "DI1:1\r\n"),
        ("é".encode(), "é"),
        (b"a\xffb", "a\\xffb"),
        (b"\xc3", "\\xc3"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (b"\x00\x01", "\x00\x01"),
    ],
)
@pytest.mark.parametrize("codec_id", [0x0C, 0x0E])
def test_bytes_of_an_answer_that_are_not_utf_8_are_escaped(
    content: bytes, text: str, codec_id: int
) -> None:
    answer = possible_answer(IMEI, alone(message_of(RESPONSE, codec_id, content)))
    assert answer == Answer(MESSAGE_CODECS[codec_id].name, text)


def test_answer_in_several_parts_has_a_line_for_each() -> None:
    assert possible_answer(IMEI, decoded_messages(TWO_PARTS_12.frame)) == Answer(
        "12", "part1\npart2"
    )


@pytest.mark.parametrize(
    ("codec_id", "parts", "expected"),
    [
        (0x0C, [(COMMAND, b"a", IMEI), (RESPONSE, b"b", IMEI)], Answer("12", "b")),
        (0x0C, [(RESPONSE, b"a", IMEI), (PHOTO, b"b", IMEI)], Answer("12", "a")),
        (0x0C, [(RESPONSE, b"", IMEI), (RESPONSE, b"", IMEI)], Answer("12", "\n")),
        (0x0C, [(COMMAND, b"a", IMEI), (NACK, b"b", IMEI)], None),
        (0x0E, [(RESPONSE, b"a", IMEI), (RESPONSE, b"b", OTHER)], Answer("14", "a")),
        (0x0E, [(RESPONSE, b"a", IMEI), (RESPONSE, b"b", IMEI)], Answer("14", "a\nb")),
        (0x0E, [(NACK, b"", OTHER), (RESPONSE, b"b", IMEI)], Answer("14", "b")),
        (0x0E, [(NACK, b"", OTHER), (NACK, b"", IMEI)], Answer("14", "", refused=True)),
        (0x0D, [(RESPONSE, b"a", IMEI), (RESPONSE, b"b", IMEI)], None),
        (0x0C, [], None),
    ],
)
def test_only_answers_among_the_parts_of_a_frame_become_the_answer(
    codec_id: int, parts: list[tuple[int, bytes, str]], expected: Answer | None
) -> None:
    messages = [message_of(type_, codec_id, content, imei) for type_, content, imei in parts]
    assert possible_answer(IMEI, Messages(MESSAGE_CODECS[codec_id], tuple(messages))) == expected


@given(st.binary(max_size=100), st.sampled_from(TYPES), st.sampled_from([*MESSAGE_CODECS]))
def test_any_message_is_accepted_and_its_answer_is_valid_utf_8(
    content: bytes, type_: int, codec_id: int
) -> None:
    answer = possible_answer(IMEI, alone(message_of(type_, codec_id, content)))
    if answer is not None:
        answer.text.encode()
        assert answer.refused is (type_ == NACK)
