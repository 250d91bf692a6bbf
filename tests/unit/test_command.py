"""Commands in Redis: every field at and beyond its limits, and entries that are invalid."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.command import (
    DEFAULT_TIMEOUT,
    MAX_FIELDS,
    MAX_TEXT_BYTES,
    MAX_TIMEOUT,
    BadCommand,
    Command,
)
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds

VALID = {
    b"command_id": b"0b6f3c1e-8a53-4f8e-9d59-6a1f0f6f2a11",
    b"device_id": b"356307042441013",
    b"payload": b"getinfo",
    b"codec": b"14",
    b"expires_at": b"2026-11-22T10:00:00.250Z",
    b"timeout": b"45.5",
}
COMMAND = Command(
    "0b6f3c1e-8a53-4f8e-9d59-6a1f0f6f2a11",
    "356307042441013",
    "getinfo",
    1_795_341_600_250,
    "14",
    45.5,
)
each_field = pytest.mark.parametrize("name", VALID, ids=bytes.decode)


def flat(fields: dict[bytes, bytes]) -> list[bytes]:
    """Return alternating names and values."""
    return [part for field in fields.items() for part in field]


def entry(name: str, value: bytes | str) -> list[bytes]:
    """Return a valid entry with one field replaced."""
    raw = value if isinstance(value, bytes) else value.encode()
    return flat({**VALID, name.encode(): raw})


def rejection(content: list[bytes]) -> str:
    """Return the reason for which an entry is rejected."""
    with pytest.raises(BadCommand) as caught:
        Command.from_entry(content)
    text = str(caught.value)
    assert text
    assert text.isprintable()
    return text


def test_entry_of_a_command_is_parsed() -> None:
    assert Command.from_entry(flat(VALID)) == COMMAND


def test_order_of_the_fields_of_a_command_does_not_matter() -> None:
    assert Command.from_entry(flat(dict(reversed(VALID.items())))) == COMMAND


def test_command_is_written_with_the_fields_of_the_contract() -> None:
    assert COMMAND.to_fields() == (
        *("command_id", "0b6f3c1e-8a53-4f8e-9d59-6a1f0f6f2a11"),
        *("device_id", "356307042441013", "payload", "getinfo", "codec", "14"),
        *("expires_at", "2026-11-22T10:00:00.250Z", "timeout", "45.5"),
        *("sender", "", "sent_at", ""),
    )


@pytest.mark.parametrize("name", ["command_id", "device_id", "payload", "expires_at"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_entry_with_a_missing_or_empty_required_field_is_rejected(name: str, how: str) -> None:
    fields = {**VALID, name.encode(): b""}
    if how == "missing":
        del fields[name.encode()]
    assert rejection(flat(fields)).startswith(f"{name}: ")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_codec_and_timeout_of_a_command_are_optional(how: str) -> None:
    fields = {**VALID, b"codec": b"", b"timeout": b""}
    if how == "missing":
        del fields[b"codec"], fields[b"timeout"]
    command = Command.from_entry(flat(fields))
    assert command.codec == ""
    assert command.timeout == DEFAULT_TIMEOUT == 30


def test_entry_without_any_field_is_rejected() -> None:
    assert rejection([])


@each_field
@pytest.mark.parametrize("raw", [b"\xff", b"12\x80", b"\xc3", b"\xed\xa0\x80"])
def test_field_that_is_not_utf_8_is_rejected(name: bytes, raw: bytes) -> None:
    assert rejection(flat({**VALID, name: raw})) == f"{name.decode()} is not UTF-8"


@each_field
def test_last_value_of_a_repeated_field_is_used(name: bytes) -> None:
    assert Command.from_entry([name, b"\xff", *flat(VALID)]) == COMMAND
    assert rejection([*flat(VALID), name, b"\xff"]) == f"{name.decode()} is not UTF-8"


def test_unknown_fields_of_a_command_are_ignored() -> None:
    unknown = {b"requested_by": b"\xff\x00", b"\xfe": b"", b"": b"x", b"PAYLOAD": b"y"}
    assert Command.from_entry(flat({**unknown, **VALID})) == COMMAND


@pytest.mark.parametrize("names", ["distinct", "the same"])
@pytest.mark.parametrize("accepted", [True, False])
def test_number_of_fields_of_a_command_is_limited(names: str, accepted: bool) -> None:
    more = MAX_FIELDS - len(VALID) + (not accepted)
    extra = [f"x{number if names == 'distinct' else ''}".encode() for number in range(more)]
    content = [*flat(VALID), *(part for name in extra for part in (name, b""))]
    if accepted:
        assert Command.from_entry(content) == COMMAND
    else:
        assert rejection(content) == "more than 100 fields"


def test_name_without_a_value_is_rejected() -> None:
    assert rejection([*flat(VALID), b"payload"])


# Identities, text and codec.


@pytest.mark.parametrize("value", ["a", "~", "!", "x" * 64, "{a}:b/c*"])
def test_valid_command_id_is_accepted(value: str) -> None:
    assert Command.from_entry(entry("command_id", value)).command_id == value


@pytest.mark.parametrize(
    "value", ["", "x" * 65, "a b", " a", "a\n", "\n", "a\x00", "a\x7f", "\t", "é", "a" * 63 + "é"]
)
def test_invalid_command_id_is_rejected(value: str) -> None:
    assert rejection(entry("command_id", value)).startswith("command_id: ")


@pytest.mark.parametrize("value", ["0" * 15, "9" * 15, "A0000012345678", "Z", "1" * 32])
def test_valid_device_id_is_accepted(value: str) -> None:
    assert Command.from_entry(entry("device_id", value)).device_id == value


@pytest.mark.parametrize(
    "value",
    ["", "1" * 33, "1" * 15 + "\n", " " + "1" * 14, "-" + "1" * 14, "x" * 15, "٣" * 15, "É"],
)
def test_invalid_device_id_is_rejected(value: str) -> None:
    assert rejection(entry("device_id", value)).startswith("device_id: ")


@pytest.mark.parametrize(
    "value",
    [
        *("x", " ", "\x00", "\r\n", "é", "setparam 2001:a b\r\n", "x" * MAX_TEXT_BYTES),
        *("é" * (MAX_TEXT_BYTES // 2), "😀" * (MAX_TEXT_BYTES // 4), "x" + "é" * 2047 + "y"),
    ],
    ids=ascii,
)
def test_text_of_a_command_is_not_changed(value: str) -> None:
    assert Command.from_entry(entry("payload", value)).text == value


@pytest.mark.parametrize(
    "value",
    ["", "x" * 4097, "é" * 2048 + "x", "x" + "é" * 2048, "😀" * 1024 + "x", "x" * 100_000],
    ids=lambda value: f"{len(value)}-characters",
)
def test_text_of_a_command_is_limited_in_bytes(value: str) -> None:
    assert MAX_TEXT_BYTES == 4096
    assert rejection(entry("payload", value)) == "payload: must be 1 to 4096 bytes long"


# Bytes.


def in_hex(value: str) -> list[bytes]:
    """Return a valid entry with bytes instead of a text."""
    fields = {**VALID, b"payload_hex": value.encode()}
    del fields[b"payload"]
    return flat(fields)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("00", b"\x00"),
        ("0A0BFF", b"\x0a\x0b\xff"),
        ("0a0bff", b"\x0a\x0b\xff"),
        ("0A 0B FF", b"\x0a\x0b\xff"),
        ("0A:0B:FF", b"\x0a\x0b\xff"),
        (" 0A0B\r\nFF\n", b"\x0a\x0b\xff"),
        ("676574696e666f", b"getinfo"),
        ("ff" * MAX_TEXT_BYTES, b"\xff" * MAX_TEXT_BYTES),
        ("ff: " * MAX_TEXT_BYTES, b""),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bytes_of_a_command_are_read_from_hex(value: str, expected: bytes) -> None:
    if not expected:
        assert rejection(in_hex(value)).startswith("payload_hex: ")  # it ends with a colon
        return
    command = Command.from_entry(in_hex(value))
    assert (command.content, command.raw, command.text) == (expected, expected, "")


@pytest.mark.parametrize(
    "value",
    [
        *(" ", "\n", "0", "0A0", "0A 0", "A B", "0A0x", "0x0A", "getinfo", "0A-0B", "0A,0B", "٠٠"),
        *(":0A", "0A:", "0A\x000B", "0A\u20030B", "\\x0a"),
    ],
    ids=ascii,
)
def test_text_that_is_not_hex_is_rejected(value: str) -> None:
    assert rejection(in_hex(value)) == (
        "payload_hex: must be pairs of hex digits, such as 0A0BFF, or 0A:0B:FF, or 0A 0B FF"
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("00" * 4097, "payload_hex: must be 1 to 4096 bytes long"),
        ("00 " * 4097, "payload_hex: must be 1 to 4096 bytes long"),
        ("0" * 16_385, "payload_hex: must be at most 16384 characters long"),
        ("x" * 100_000, "payload_hex: must be at most 16384 characters long"),
    ],
    ids=lambda value: f"{len(value)}-characters",
)
def test_bytes_of_a_command_are_limited(value: str, reason: str) -> None:
    assert rejection(in_hex(value)) == reason


def test_command_with_both_a_text_and_bytes_is_rejected() -> None:
    fields = {**VALID, b"payload_hex": b"00"}
    assert rejection(flat(fields)) == "payload and payload_hex: one of them must be empty"
    assert Command.from_entry(flat({**VALID, b"payload_hex": b""})) == COMMAND


@given(st.binary(min_size=1, max_size=MAX_TEXT_BYTES))
def test_command_with_bytes_is_read_back_from_its_fields(raw: bytes) -> None:
    command = Command("a", "1" * 15, "", 0, raw=raw)
    fields = [field.encode() for field in command.to_fields()]
    assert Command.from_entry(fields) == command
    assert command.content == raw
    # Programs of earlier versions would send the payload as text; they refuse an entry without it.
    assert b"payload" not in fields[::2]


@pytest.mark.parametrize("value", ["", "12", "8E", "x" * 16, "a_b-c.D"])
def test_valid_codec_is_accepted(value: str) -> None:
    assert Command.from_entry(entry("codec", value)).codec == value


@pytest.mark.parametrize("value", ["x" * 17, " 12", "12\n", "1 2", "é", "12\x00", "{12}", "\n"])
def test_invalid_codec_is_rejected(value: str) -> None:
    assert rejection(entry("codec", value)).startswith("codec: ")


# Times.


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2026-11-22T10:00:00Z", 1_795_341_600_000),
        ("2026-11-22T10:00:00.25Z", 1_795_341_600_250),
        ("2026-11-22T10:00:00.2509999Z", 1_795_341_600_250),
        ("2026-11-22T10:00:00.000001Z", 1_795_341_600_000),
        ("2026-11-22T12:30:00+02:30", 1_795_341_600_000),
        ("2026-11-22T00:00:00-10:00", 1_795_341_600_000),
        ("2026-11-22T10:00:00+00:00", 1_795_341_600_000),
        ("2026-11-22 10:00:00Z", 1_795_341_600_000),
        ("2026-11-22t10:00:00Z", 1_795_341_600_000),
        ("20261122T100000Z", 1_795_341_600_000),
        ("9999-12-31T23:59:59.999Z", MAX_TIMESTAMP_MS),
        ("9999-12-31T23:59:59.999999Z", MAX_TIMESTAMP_MS),
    ],
)
def test_expiry_is_parsed(value: str, milliseconds: int) -> None:
    assert Command.from_entry(entry("expires_at", value)).expires_at == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T10:00:00",  # without a time zone
        "2026-11-22 10:00:00.000",
        "2026-11-22",
        "20261122",
        "10:00:00Z",
        "2026-13-22T10:00:00Z",
        "2026-02-29T10:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T10:00:60Z",
        "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00:00+",
        "2026-11-22T10:00:00ZZ",
        "12026-11-22T10:00:00Z",
        "-2026-11-22T10:00:00Z",
        "1795341600000",
        "1795341600",
        "tomorrow",
        "null",
        "\n",
        "Z",
        "2026-11-22T10:00:00Z\x00",
        "2026-11-22T10:00:00Z\x00 or later",
        "2026-11-22T10:00:00\x00Z",
        "2026-11-22\n10:00:00Z",
        "٢٠٢٦-11-22T10:00:00Z",
        "9" * 100_000,
        "2026-11-22T10:00:00." + "9" * 100_000,
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_invalid_expiry_is_rejected(value: str) -> None:
    assert rejection(entry("expires_at", value)) == (
        "expires_at: must have the form 2026-11-22T10:00:00Z, with Z or an offset"
    )


@pytest.mark.parametrize(
    "value",
    [
        "1969-12-31T23:59:59.999Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:59:59+01:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59.999-00:01",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_expiry_outside_of_four_digit_years_is_rejected(value: str) -> None:
    assert rejection(entry("expires_at", value)) == (
        "expires_at: must be between the years 1970 and 9999"
    )


@given(st.integers(0, MAX_TIMESTAMP_MS))
def test_expiry_is_exact_to_the_millisecond(milliseconds: int) -> None:
    text = iso_milliseconds(milliseconds)
    assert Command.from_entry(entry("expires_at", text)).expires_at == milliseconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("1", 1), ("30", 30), ("0.001", 0.001), ("1e2", 100), ("5e-324", 5e-324)),
        *(("86399.999", 86399.999), ("86400", 86400), ("86400.0", 86400), ("864e2", 86400)),
    ],
)
def test_timeout_is_parsed(value: str, seconds: float) -> None:
    assert Command.from_entry(entry("timeout", value)).timeout == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("0", "0.0", "-0", "-1", "-0.001", "86400.001", "86401", "nan", "-nan", "inf", "-inf"),
        *("infinity", "1e309", "1e-400", "9" * 10_000, "", " ", "30s", "1,5", "0x10", "30\x00"),
        *("\n", "none", "1 2"),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_invalid_timeout_is_rejected(value: str) -> None:
    assert MAX_TIMEOUT == 86_400
    if value:
        assert (
            rejection(entry("timeout", value)) == "timeout: must be a number of seconds up to 86400"
        )
    else:
        assert Command.from_entry(entry("timeout", value)).timeout == DEFAULT_TIMEOUT


# Untrusted texts.


def checked(**changes: str) -> Command:
    given = {"command_id": "a", "device_id": "1" * 15, "text": "getver"}
    return Command.checked(**{**given, "expires_at": "2026-11-22T10:00:00Z", **changes})


def test_command_without_codec_and_timeout_has_their_defaults() -> None:
    assert checked() == Command("a", "1" * 15, "getver", 1_795_341_600_000)


@pytest.mark.parametrize("name", ["command_id", "device_id", "text", "expires_at", "timeout"])
@pytest.mark.parametrize("value", ["\ud800", "getver \udcff"])
def test_text_from_a_command_line_must_be_utf_8(name: str, value: str) -> None:
    with pytest.raises(BadCommand) as caught:
        checked(**{name: value})
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


# Properties.

printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)
texts = st.text(min_size=1, max_size=MAX_TEXT_BYTES // 4)  # a character has at most four bytes
commands = st.builds(
    Command,
    printable,
    st.text("0123456789", min_size=15, max_size=15),
    texts,
    st.integers(0, MAX_TIMESTAMP_MS),
    st.text("abcXYZ0189_.-", max_size=16),
    st.integers(1, 86_400_000).map(lambda milliseconds: milliseconds / 1000),
)


@given(commands)
def test_any_command_is_parsed_from_its_own_fields(command: Command) -> None:
    fields = command.to_fields()
    assert Command.from_entry([part.encode() for part in fields]) == command
    assert Command.from_entry([part.encode() for part in fields]).to_fields() == fields


@given(st.floats(0, MAX_TIMEOUT, exclude_min=True))
def test_any_timeout_is_parsed_from_its_own_text(seconds: float) -> None:
    fields = Command("a", "1" * 15, "x", 0, "", seconds).to_fields()
    again = Command.from_entry([part.encode() for part in fields])
    assert math.isclose(again.timeout, seconds, rel_tol=1e-9, abs_tol=5e-324)


names = st.one_of(st.sampled_from([*VALID]), st.binary(max_size=12))
timelike = st.text("0123456789-:+.,TWZ ", max_size=40).map(str.encode)
values = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    timelike,
    st.sampled_from([*VALID.values()]),
)


def parsed(content: list[bytes]) -> Command | str:
    """Return the command in an entry, or the reason for which it is rejected."""
    try:
        return Command.from_entry(content)
    except BadCommand as error:
        return str(error)


@given(st.lists(st.one_of(names, values), max_size=16))
def test_any_entry_is_parsed_or_raises_bad_command(content: list[bytes]) -> None:
    result = parsed(content)
    assert isinstance(result, Command) or result.isprintable()


@given(names, values)
def test_any_field_value_is_parsed_or_raises_bad_command(name: bytes, value: bytes) -> None:
    result = parsed(flat({**VALID, name: value}))
    if isinstance(result, str):
        assert name in {*VALID, b"payload_hex"}
        assert result.isprintable()
    else:
        fields = result.to_fields()
        assert Command.from_entry([part.encode() for part in fields]).to_fields() == fields


@given(timelike, st.integers(0, 24), st.integers(0, 24))
def test_damaged_time_is_parsed_or_rejected(damage: bytes, start: int, stop: int) -> None:
    time = VALID[b"expires_at"]
    result = parsed(entry("expires_at", time[:start] + damage + time[stop:]))
    if isinstance(result, str):
        assert result.startswith("expires_at: ")
    else:
        assert 0 <= result.expires_at <= MAX_TIMESTAMP_MS
