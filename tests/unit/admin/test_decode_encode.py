"""``tracker-admin decode`` and ``encode``: their arguments, output and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given

from tests.unit.vendors.concox.golden import POSITION_22
from tests.unit.vendors.queclink.golden import FRI_GV300
from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.examples import (
    CODEC_7_FRAME,
    DATAGRAM,
    EXAMPLES,
    datagrams,
    frames,
    logins,
)
from tests.unit.vendors.teltonika.golden import LOGIN, NARROW_ELEMENTS, PANIC, SMALLEST, STREAM
from tracker.admin.cli import main
from tracker.admin.vendors import tools
from tracker.vendors.teltonika.frames import Frame, encode_any_frame
from tracker.vendors.tools import decoder_of

#: Vendor → a frame that the device sends.
FRAMES = {
    "concox": POSITION_22.data,
    "queclink": FRI_GV300.data,
    "teltonika": PANIC.frame,
}


def admin(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


def error_of(result: Result) -> str:
    """Return the error of a failed command, which is its only output and one line."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("tracker-admin: ")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("tracker-admin: ")


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("options", [(), ("--names",)], ids=["plain", "names"])
def test_encode_restores_the_bytes_of_a_decoded_example(
    data: bytes, options: tuple[str, ...]
) -> None:
    shown = admin("decode", *options, data.hex())
    assert (shown.exit_code, shown.stderr) == (0, "")
    again = admin("encode", stdin=shown.stdout)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == data.hex().upper() + "\n"


@given(frames | datagrams | logins)
def test_encode_restores_the_bytes_of_any_decoded_frame(frame: Frame) -> None:
    data = encode_any_frame(frame).hex().upper()
    assert admin("encode", stdin=admin("decode", "-", stdin=data).stdout).stdout == f"{data}\n"


@pytest.mark.parametrize(
    "written",
    [
        PANIC.frame.hex().upper(),
        PANIC.frame.hex(" "),
        PANIC.frame.hex(":"),
        PANIC.frame.hex("\n", 16),
        "\t" + PANIC.frame.hex("\r", 2) + "\r\n",
    ],
)
def test_hex_may_contain_separators_and_come_from_standard_input(written: str) -> None:
    expected = admin("decode", PANIC.frame.hex()).stdout
    assert json.loads(expected)["records"][0]["timestamp"] == 1_717_230_615_250
    assert admin("decode", written).stdout == expected
    assert admin("decode", *written.split()).stdout == expected
    assert admin("decode", "-", stdin=written).stdout == expected
    assert admin("decode", stdin=written).stdout == expected


def test_decode_shows_several_frames_as_an_array() -> None:
    shown = admin("decode", "-", stdin=STREAM.hex())
    kinds = [frame["kind"] for frame in json.loads(shown.stdout)]
    assert kinds == ["ping", "login", "ping", "frame", "ping"]
    assert admin("encode", "-", stdin=shown.stdout).stdout == STREAM.hex().upper() + "\n"


def test_names_option_adds_names_and_scaled_values() -> None:
    line = '        {"id": 25, "width": 2, "value": 64349'
    plain, common, named = (
        admin("decode", *names, PANIC.frame.hex()).stdout
        for names in ((), ("--names",), ("--names", "--model", "fmb920"))
    )
    assert f"{line}}},\n" in plain
    assert f"{line}}},\n" in common
    assert '"name": "External Voltage", "scaled": 13.92, "unit": "V"' in common
    more = ', "name": "BLE Temperature #1", "scaled": -11.87, "unit": "°C"'
    assert f"{line}{more}}},\n" in named


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--model", "FMB920"), "--model requires --names."),
        (
            ("--names", "--model", "XYZ"),
            "--model XYZ: no list of this model. Use a similar one, such as FMB920.",
        ),
    ],
)
def test_model_requires_names_and_must_be_in_a_list(options: tuple[str, ...], error: str) -> None:
    assert error_of(admin("decode", *options, PANIC.frame.hex())) == error


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (malformed.BAD_CRC, "offset 48: crc: expected 0x0000f22a, found 0x0000f22b"),
        (
            STREAM + malformed.BAD_CRC,
            "offset 113: crc: expected 0x0000f22a, found 0x0000f22b",
        ),
        (
            malformed.COUNTS_DIFFER,
            "offset 47: second count of records: expected 1, found 2",
        ),
        (
            malformed.UNKNOWN_CODEC,
            "offset 8: codec: expected one of 0x07, 0x08, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x8e, "
            "found 0x55",
        ),
        (
            malformed.RECORD_MISSING,
            "offset 47: records[1] timestamp: expected 8 bytes, "
            "found 0 bytes up to the second count",
        ),
        (
            malformed.TOTAL_DIFFERS,
            "offset 35: records[0] total of elements: expected 3, found 4",
        ),
        (
            malformed.STRAY_BYTE,
            "offset 47: records: expected the second count, found 1 byte before it",
        ),
        (
            SMALLEST.frame[:-1],
            "offset 41: crc: expected 4 bytes, found 3 bytes up to the end",
        ),
        (LOGIN[:-1] + b"\n", r"offset 2: imei: expected 15 digits, found '35630704244101\n'"),
    ],
)
def test_malformed_bytes_are_an_error_with_offset_and_field(data: bytes, error: str) -> None:
    assert error_of(admin("decode", data.hex())) == error
    assert error_of(admin("decode", "--names", "-", stdin=data.hex(" "))) == error


AMBIGUOUS = (
    "offset 0: frame: expected 000f (login) or 61 bytes after the length (datagram), "
    "found 003d and {}"
)


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (2, AMBIGUOUS.format("0 bytes")),
        (3, "offset 2: packet id: expected 2 bytes, found 1 byte up to the end"),
        (4, "offset 4: unused: expected 1 byte, found 0 bytes up to the end"),
        (5, "offset 5: avl packet id: expected 1 byte, found 0 bytes up to the end"),
        (6, "offset 6: length of the imei: expected 2 bytes, found 0 bytes up to the end"),
        (7, "offset 6: length of the imei: expected 2 bytes, found 1 byte up to the end"),
        (8, "offset 8: imei: expected 15 bytes, found 0 bytes up to the end"),
        (12, "offset 8: imei: expected 15 bytes, found 4 bytes up to the end"),
        (
            40,
            "offset 23: data: expected 40 bytes, according to the length, "
            "found 17 bytes up to the end",
        ),
    ],
)
def test_truncated_datagram_is_an_error(size: int, error: str) -> None:
    assert error_of(admin("decode", DATAGRAM[:size].hex())) == error


def test_as_option_selects_the_error_reported_for_ambiguous_bytes() -> None:
    written = "003D31"
    assert error_of(admin("decode", written)) == AMBIGUOUS.format("1 byte")
    error = "offset 0: length: expected 000f, found 003d"
    assert error_of(admin("decode", "--as", "login", written)) == error
    error = "offset 2: packet id: expected 2 bytes, found 1 byte up to the end"
    assert error_of(admin("decode", "--as", "datagram", written)) == error


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("00 0G", "character 5: 'G' is not a hex digit"),
        ("0x00", "character 2: 'x' is not a hex digit"),
        ("000", "3 hex digits: the second digit of the last byte is missing"),
        ("\x1b[2J", r"character 1: '\x1b' is not a hex digit"),
    ],
)
def test_malformed_hex_is_an_error(written: str, error: str) -> None:
    assert error_of(admin("decode", written)) == error
    assert error_of(admin("decode", stdin=written)) == error


def test_binary_input_is_an_error() -> None:
    assert error_of(admin("decode", stdin=DATAGRAM)) == r"character 1: '\x00' is not a hex digit"


def test_empty_input_is_an_error() -> None:
    assert error_of(admin("decode")) == "No bytes given."


def test_as_option_forces_the_kind_of_a_frame() -> None:
    forced = admin("decode", "--as", "frame", LOGIN.hex())
    error = "offset 0: preamble: expected 00000000, found 000f3335"
    assert error_of(forced) == error
    assert admin("decode", "--as", "login", LOGIN.hex()).stdout == (
        admin("decode", LOGIN.hex()).stdout
    )
    assert admin("decode", "--as", "telegram", LOGIN.hex()).exit_code == 2


def test_bytes_and_documents_that_no_vendor_recognises_need_the_option() -> None:
    error = error_of(admin("decode", "1122334455667788"))
    start = "offset 0: the first bytes 1122334455667788 do not show the vendor. Give --vendor: "
    assert error.startswith(start)
    error = error_of(admin("encode", stdin="{}"))
    assert error.startswith("the fields do not show the vendor. Give --vendor: ")
    assert error_of(admin("encode", "--vendor", "teltonika", stdin="{}")).startswith("kind: ")


@pytest.mark.parametrize("name", list(tools(decoder_of)))
def test_vendor_is_detected_and_may_be_given(name: str) -> None:
    data = FRAMES[name].hex().upper()
    shown = admin("decode", data)
    assert shown.exit_code == 0, shown.stderr
    assert admin("decode", "--vendor", name, data).stdout == shown.stdout
    for options in ((), ("--vendor", name)):
        assert admin("encode", *options, stdin=shown.stdout).stdout == f"{data}\n"


def test_names_of_a_vendor_without_a_list_are_an_error() -> None:
    error = "--names: queclink has no list of names. Omit --names."
    assert error_of(admin("decode", "--names", FRAMES["queclink"].hex())) == error


@pytest.mark.parametrize("command", ["decode", "encode"])
def test_decode_and_encode_refuse_an_unknown_vendor(command: str) -> None:
    refused = admin(command, "--vendor", "acme", stdin="00")
    assert refused.exit_code == 2
    assert "Unknown vendor 'acme'. Known: " in refused.stderr


def test_encode_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "frame.json"
    path.write_text(admin("decode", NARROW_ELEMENTS.frame.hex()).stdout, encoding="utf-8")
    assert admin("encode", str(path)).stdout == NARROW_ELEMENTS.frame.hex().upper() + "\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1, column 1: not JSON: Expecting value"),
        ('{"kind": "ping",\n 3}', "line 2, column 2: not JSON: Expecting property name"),
        (b"\xff", "byte 1: not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ("1" * 5000, "document: expected an object, found a number of 5,000 digits"),
        (
            f'{{"kind": "ping", "count": -{"1" * 5000}}}',
            "count: expected an integer from 1 to 16777216, found a number of 5,000 digits",
        ),
        (f'{{"kind": "login", "imei": {"1" * 4301}}}', "imei: expected 15 digits in quotes, found"),
        (f'{{"kind": {"1" * 5000}}}', 'kind: expected one of "ping", '),
        (f'{{"kind": "ping", "count": 1, "{"1" * 5000}": 1}}', "document: expected only the"),
        (
            '{"kind": "ping", "count": 1, "count": 1}',
            'document: expected each field once, found field "count" twice',
        ),
        (
            '[{"kind": "ping", "count": 1}, {"kind": "login", "imei": "1", "imei": "2"}]',
            '[1]: expected each field once, found field "imei" twice',
        ),
        (
            '{"kind": "frame", "codec": "7", "kind": "ping"}',
            'document: expected each field once, found field "kind" twice',
        ),
        (
            '{"kind": "ping", "count": {"a": 1, "a": 1}}',
            "count: expected an integer from 1 to 16777216, found an object",
        ),
        ('{"a\\nb": 1, "a\\u000ab": 2}', 'document: expected each field once, found field "a\\nb"'),
        ('{"kind": "ping"}', "count: expected this field, found nothing"),
        ('[{"kind": "login", "imei": "1"}]', '[0].imei: expected 15 digits in quotes, found "1"'),
    ],
)
def test_malformed_document_is_an_error_with_its_path(text: str | bytes, error: str) -> None:
    assert error_of(admin("encode", stdin=text)).startswith(error)


def test_field_given_twice_is_an_error_with_its_path() -> None:
    shown = admin("decode", PANIC.frame.hex()).stdout
    again = shown.replace('"width": 1, "value": 246', '"width": 1, "value": 246, "value": 1')
    error = 'records[0].elements[3]: expected each field once, found field "value" twice'
    assert error_of(admin("encode", stdin=again)) == error


def test_number_of_many_digits_in_an_ignored_field_is_accepted() -> None:
    shown = admin("decode", PANIC.frame.hex()).stdout
    again = shown.replace('"length": 109', f'"length": {"1" * 5000}')
    assert again != shown
    assert admin("encode", stdin=again).stdout == PANIC.frame.hex().upper() + "\n"


def test_decode_reads_a_long_decimal_number_as_hex() -> None:
    error = "offset 0: frame: expected ff (ping), 000f (login), 00000000 (frame) or a datagram, "
    assert error_of(admin("decode", "--vendor", "teltonika", "1" * 5000)).startswith(error)


def test_codec_7_can_be_decoded_but_not_encoded() -> None:
    shown = admin("decode", CODEC_7_FRAME.hex())
    assert shown.exit_code == 0
    error = 'codec: expected a codec that can be encoded, found "7", which can only be decoded'
    assert error_of(admin("encode", stdin=shown.stdout)) == error


def test_help_lists_decode_and_encode() -> None:
    listed = admin("--help").stdout
    assert "decode" in listed
    assert "encode" in listed
