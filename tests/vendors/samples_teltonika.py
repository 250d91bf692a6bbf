"""Samples of the Teltonika protocol."""

from __future__ import annotations

from typing import Final

from tests.vendors.samples import Samples
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.datagram import Datagram, encode_ack, encode_datagram
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message

IMEI: Final = "356307042441013"
_RECORDS: Final = [Record(1_710_504_600_000 + second, 0, 1, 2, 3, 4, 5, 6, 0) for second in (0, 9)]
_PACKET: Final = encode_packet(CODEC_8, _RECORDS)
_FRAME: Final = encode_frame(_PACKET)
_DATAGRAM: Final = Datagram(0xCAFE, 5, IMEI, _PACKET)


def _message(text: bytes) -> bytes:
    return encode_frame(encode_message(Message(MESSAGE_CODECS[0x0C], 0x06, text, None, None)))


SAMPLES: Final = Samples(
    device_id=IMEI,
    login=b"\x00\x0f" + IMEI.encode(),
    record=_FRAME,
    entries=2,
    ack=b"\x00\x00\x00\x02",
    repetition=_FRAME,
    never_repeated=_message(b"DI1:1"),
    bad=_FRAME[:20] + bytes((_FRAME[20] ^ 1,)) + _FRAME[21:],
    command=b"getinfo",
    answer=lambda command: _message(b"RTC:2024/3/15 12:10"),
    datagram=encode_datagram(_DATAGRAM),
    datagram_ack=encode_ack(0xCAFE, 5, 2),
    wrong_ids=("", "x", IMEI[:-1], f"{IMEI}0", f"{IMEI}\n", "35630704244101A"),
)
