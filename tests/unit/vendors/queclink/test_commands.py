"""Commands, and the passwords that are inserted in them."""

from __future__ import annotations

import re

import pytest

from tests.unit.vendors.queclink.conversation import DEVICE, OTHER
from tracker.command import CommandFrame
from tracker.vendors.queclink.commands import Serials, command_frame
from tracker.vendors.queclink.passwords import parse_passwords

PASSWORDS = parse_passwords(f"# fleet\n\n{DEVICE} gv300\n*   s3cret\n")


def frame(text: str, device_id: str = DEVICE, codec: str = "") -> CommandFrame:
    return command_frame(device_id, text.encode(), codec, passwords=PASSWORDS, serials=Serials())


@pytest.mark.parametrize(
    "text",
    [
        *("GTRTO=,1,,,,,,", "AT+GTRTO=,1,,,,,,", "AT+GTRTO=,1,,,,,,$", "GTRTO={password},1,,,,,,"),
        *("AT+GTRTO={password},1,,,,,,FFFF$", " AT+GTRTO=,1,,,,,,FFFF$\r\n"),
    ],
)
def test_password_and_serial_number_are_inserted(text: str) -> None:
    made = frame(text)
    assert made.data == f"AT+GTRTO=gv300,1,,,,,,{made.token}$".encode()
    assert re.fullmatch("[0-9A-F]{4}", made.token)
    assert made.token != "FFFF"
    assert made.codec == "ascii"


def test_other_devices_have_the_password_of_the_star() -> None:
    assert frame("GTRTO=,1,,,,,,", OTHER).data.startswith(b"AT+GTRTO=s3cret,")


def test_given_serial_number_is_sent_as_it_is() -> None:
    made = frame("AT+GTOUT=,1,,,0,0,,000b$")
    assert made.data == b"AT+GTOUT=gv300,1,,,0,0,,000B$"
    assert made.token == "000B"


@pytest.mark.parametrize("text", ["AT+GTOUT=mine,1,,,0,0,,$", "GTRTO=mine,1,,,,,,"])
def test_command_with_a_password_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="leave it empty") as caught:
        frame(text)
    assert "mine" not in str(caught.value)


@pytest.mark.parametrize("text", ["GTRTO=,1,,,,,,", "AT+GTRTO={password},1,,,,,,FFFF$"])
def test_password_is_not_shown(text: str) -> None:
    made = frame(text)
    assert made.shown == f"AT+GTRTO=***,1,,,,,,{made.token}$".encode()


def test_serial_numbers_of_commands_differ() -> None:
    serials = Serials()
    made = [serials.next() for _ in range(0xFFFF)]
    assert len(set(made)) == len(made)
    assert "FFFF" not in made


@pytest.mark.parametrize(
    "text",
    [
        *("", "GTRTO", "GTRTO=", "GTRTO=,1", "GTRTO=,1,12345", "reboot", "AT+GTRTO=,1,,$x"),
        *(
            "AT+GTRTO=,1,$AT+GTRTO=,3,",
            "GTRTO=,\u00e9,",
            "GTRTO=,\n,",
            "AT@RTO=,1,",
            "GTRTO=,1,\0,",
        ),
    ],
)
def test_text_that_is_not_a_command_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not a command|the last field)") as caught:
        frame(text)
    assert "gv300" not in str(caught.value)


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="codec"):
        frame("GTRTO=,1,,,,,,", codec="hex")


def test_command_without_a_known_password_is_refused() -> None:
    only = parse_passwords(f"{OTHER} x")
    for passwords in (only, None):
        with pytest.raises(ValueError, match="no password"):
            command_frame(DEVICE, b"GTRTO=,1,,", "", passwords=passwords, serials=Serials())


@pytest.mark.parametrize(
    "line",
    [
        f"{DEVICE}",
        f"{DEVICE} pass word",
        f"{DEVICE} a,b",
        f"{DEVICE} a$b",
        "123 secret",
        "* \u00e9x",
    ],
)
def test_invalid_line_of_passwords_is_named_without_the_password(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2\b") as caught:
        parse_passwords(f"* first\n{line}\n")
    for secret in ("first", "secret", "a,b", "a$b", "word"):
        assert not re.search(rf"\b{re.escape(secret)}\b(?! must)", str(caught.value))


def test_second_password_of_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="a second password of A1000043D20139"):
        parse_passwords("a1000043d20139 x\nA1000043D20139 y\n")
