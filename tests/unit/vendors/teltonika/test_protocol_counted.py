"""Byte counters of the protocols, and the kinds of rejections."""

from __future__ import annotations

import pytest

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame
from tests.unit.vendors.teltonika.golden import TWO_RECORDS
from tests.unit.vendors.teltonika.test_datagram_protocol import Port, datagram
from tracker.interfaces import Admission, Rejection
from tracker.limits import Limits
from tracker.vendors.teltonika.envelope import encode_frame

GOOD = frame(1)
DAMAGED = GOOD[:-1] + bytes((GOOD[-1] ^ 1,))


def test_received_and_sent_bytes_are_counted() -> None:
    talk = Conversation()
    talk.send(LOGIN)
    talk.send(GOOD)
    talk.confirm()
    tally = talk.gateway.tally
    assert tally.bytes_received == len(LOGIN) + len(GOOD)
    assert tally.bytes_sent == len(talk.received()) == 5


def test_bytes_of_a_refusal_are_counted() -> None:
    talk = Conversation()
    talk.gateway.admissions[IMEI] = Admission.REFUSED
    talk.send(LOGIN)
    assert talk.gateway.tally.bytes_sent == len(talk.received()) == 1


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Rejection.LOGIN),
        (b"\x00\x0f" + b"3563070424410AB", Rejection.LOGIN),
        (LOGIN + b"\x00\x00\x00\x01", Rejection.PREAMBLE),
        (LOGIN + bytes(4) + b"\xff\xff\xff\xff", Rejection.LENGTH),
        (LOGIN + bytes(8), Rejection.LENGTH),
        (LOGIN + DAMAGED, Rejection.CRC),
        (LOGIN + encode_frame(b"\x63" + TWO_RECORDS.data[1:]), Rejection.CODEC),
        (LOGIN + encode_frame(TWO_RECORDS.data[:-1] + b"\x07"), Rejection.CONTENT),
        (LOGIN + b"\x00\x0f" + IMEI[::-1].encode(), Rejection.LOGIN),
    ],
    ids=[
        *("other protocol", "letters in the imei", "preamble", "too long", "too short"),
        *("crc", "codec", "content", "another device"),
    ],
)
def test_rejection_is_counted_by_its_kind(sent: bytes, kind: Rejection) -> None:
    talk = Conversation()
    talk.gateway.confirms_immediately = True
    talk.send(sent)
    assert talk.gateway.kinds == [kind]


def test_rejection_of_a_datagram_is_counted_by_its_kind() -> None:
    port = Port(Limits(frame_bytes=64))
    port.receive(b"\x00\x01")
    port.receive(datagram(TWO_RECORDS.data * 2))
    port.receive(datagram(b"\x63" + bytes(10)))
    assert port.gateway.kinds == [Rejection.LENGTH, Rejection.LENGTH, Rejection.CODEC]
