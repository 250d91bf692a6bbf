"""A device's conversation with the protocol, over a transport without a socket."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.talk import Talk
from tracker.limits import Limits
from tracker.position import Entry
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message
from tracker.vendors.teltonika.vendor import Teltonika

IMEI = "356307042441013"
LOGIN = b"\x00\x0f" + IMEI.encode()


def frame(*timestamps: int) -> bytes:
    records = [Record(timestamp, 0, 1, 2, 3, 4, 5, 6, 0) for timestamp in timestamps]
    return encode_frame(encode_packet(CODEC_8, records))


def message(
    text: bytes = b"DI1:1", codec_id: int = 0x0C, time: int | None = None, imei: str | None = None
) -> bytes:
    """Return the frame of a message from a device."""
    made = Message(MESSAGE_CODECS[codec_id], 0x06, text, time, imei)
    return encode_frame(encode_message(made))


def repeating(*timestamps: int) -> bytes:
    """Return a frame of records that each have an IO ID twice."""
    elements = ((66, 2, 1), (66, 2, 2))
    records = [Record(time, 0, 1, 2, 3, 4, 5, 6, 0, elements) for time in timestamps]
    return encode_frame(encode_packet(CODEC_8, records))


def is_message(entries: Sequence[Entry]) -> bool:
    """Return True for the entries of a message, which gets no ACK."""
    return bool(entries) and entries[0].codec in ("12", "13", "14", "15")


class Conversation(Talk):
    """A conversation with a Teltonika device."""

    def __init__(
        self,
        limits: Limits | None = None,
        gateway: FakeGateway | None = None,
        lingers: bool = False,
    ) -> None:
        super().__init__(Teltonika().buildFactory, limits, gateway, lingers)
