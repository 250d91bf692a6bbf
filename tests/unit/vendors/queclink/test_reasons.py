"""The wording of rejections and notices, which reaches logs: the only tests that hold it."""

from __future__ import annotations

import pytest

from tests.unit.vendors.queclink.conversation import fri
from tracker.interfaces import Rejection
from tracker.outcomes import Fatal, Rejected
from tracker.vendors.queclink.commands import Serials, command_frame
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.passwords import parse_passwords
from tracker.vendors.queclink.records import MISSING, TOO_MANY
from tracker.vendors.rejections import rejection


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"hello$", Rejection.PREAMBLE, "bytes that begin no frame"),
        (b"x" * 64, Rejection.PREAMBLE, "no frame begins within 64 bytes"),
        (b"+RESP:GT" + b"x" * 64, Rejection.LENGTH, "no $ within 64 bytes"),
        (b"+RESP:GTF" + fri(), Rejection.CONTENT, "frame without an end before the next frame"),
        (b"+RESP:GTFRIX,1$", Rejection.CONTENT, "not a report: +RESP:GTFRIX"),
        (b"+RESP:GTFRI,06$", Rejection.CONTENT, "GTFRI without a protocol version"),
        (
            b"+RESP:GTFRI,060100,123,,$",
            Rejection.CONTENT,
            "GTFRI without a device ID: it is an IMEI of 15 digits or a MEID of 14 hex digits",
        ),
    ],
)
def test_reason_of_a_rejected_frame(data: bytes, kind: Rejection, reason: str) -> None:
    outcome = decode_frame(data, 64)
    assert isinstance(outcome, Rejected | Fatal)
    assert (rejection(outcome.field), outcome.reason) == (kind, reason)


def test_notices_about_reports() -> None:
    assert MISSING == "report announces more positions than it has"
    assert TOO_MANY == "report has more positions than --records: the last ones are not read"


@pytest.mark.parametrize(
    ("content", "codec", "passwords", "reason"),
    [
        ("reboot", "", {}, "not a command: it has the form GTRTO=,1,,,,,, in printable ASCII"),
        ("GTRTO=,1", "", {}, "the last field must be the serial number: leave it empty"),
        ("GTRTO=,,", "12", {}, "unknown codec '12': commands use ascii"),
        ("GTRTO=,,", "", None, "no password: start the instance with --queclink-password-file"),
        ("GTRTO=,,", "", {}, "no password: the file has no line for 1, and none for *"),
    ],
)
def test_reason_why_a_command_is_refused(
    content: str, codec: str, passwords: dict[str, str] | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"\A") as caught:
        command_frame("1", content.encode(), codec, passwords=passwords, serials=Serials())
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x", "line 1 must be a device ID, or *, and a password"),
        ("1 x", "line 1: the device ID must be an IMEI of 15 digits or a MEID of 14 hex digits"),
        ("* a,b", "line 1: the password must be 1 to 32 ASCII characters without , and $"),
        ("* a\n* b", "line 2: a second password of *"),
    ],
)
def test_reason_why_a_password_file_is_refused(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"\A") as caught:
        parse_passwords(line)
    assert str(caught.value) == reason
