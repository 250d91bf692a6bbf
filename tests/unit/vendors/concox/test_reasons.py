"""The wording of protocol errors, as the log has it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.unit.vendors.concox.golden import HEARTBEAT, LOGIN, POSITION_22, ZONED_LOGIN
from tests.unit.vendors.talk import Talk
from tracker.interfaces import Rejection
from tracker.vendors.concox.dialect import MAX_GARBAGE_BYTES, MAX_INVALID_FRAMES
from tracker.vendors.concox.frames import Frame, encode_frame
from tracker.vendors.concox.vendor import Concox

DAMAGED = POSITION_22.data[:-3] + b"\x87\r\n"


@pytest.mark.parametrize(
    ("sent", "kind", "reason"),
    [
        ([b"\x00\x11" + LOGIN.data], Rejection.PREAMBLE, "no start of a frame"),
        ([b"xx\x03" + LOGIN.data], Rejection.LENGTH, "length 3 is not between 5 and 8192"),
        ([LOGIN.data[:-1] + b"\x00"], Rejection.CONTENT, "no stop bytes after length 13"),
        ([LOGIN.data, DAMAGED], Rejection.CRC, "CRC does not match"),
        (
            [HEARTBEAT.data],
            Rejection.LOGIN,
            "frame 0x13 before the login: the IMEI must come first",
        ),
        (
            [encode_frame(Frame(1, bytes(7)))],
            Rejection.LOGIN,
            "login without an IMEI: it must have 15 digits after a leading 0",
        ),
        (
            [LOGIN.data, ZONED_LOGIN.data],
            Rejection.LOGIN,
            "second login, with another device ID",
        ),
    ],
)
def test_reason_of_a_rejection(sent: Sequence[bytes], kind: Rejection, reason: str) -> None:
    talk = Talk(Concox().buildFactory)
    for data in sent:
        talk.send(data)
    assert talk.reason == reason
    assert talk.gateway.kinds[0] is kind


def test_reason_of_too_much_garbage() -> None:
    talk = Talk(Concox().buildFactory)
    talk.send(bytes(MAX_GARBAGE_BYTES + 1))
    assert talk.closed
    assert talk.reason == "no start of a frame, and more than 512 bytes are no frame"


def test_reason_of_too_many_wrong_checksums() -> None:
    talk = Talk(Concox().buildFactory)
    talk.send(LOGIN.data + (MAX_INVALID_FRAMES + 1) * DAMAGED)
    assert talk.closed
    assert talk.events_of("rejected")[-1] == (
        "rejected",
        "more than 16 frames in succession with a wrong CRC",
    )
