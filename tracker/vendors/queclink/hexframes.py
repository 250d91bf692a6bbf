"""The boundaries and the content of frames in the HEX encoding."""

from __future__ import annotations

from typing import Final, NamedTuple

from tracker.command import Answer
from tracker.interfaces import Rejection
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.position import Entry

#: The start of a frame. ``+ACK`` is followed by a colon in the ASCII encoding.
HEX_STARTS: Final = (
    *(b"+RSP", b"+BSP", b"+EVT", b"+BVT", b"+INF", b"+BNF"),
    *(b"+ACK", b"+HBD", b"+CRD", b"+BRD", b"+LGN"),
)


class HexFrame(NamedTuple):
    """A frame in the HEX encoding."""

    data: bytes
    """The whole frame."""
    device_id: str
    """IMEI; empty if only the connection shows which device has sent the frame."""
    is_heartbeat: bool
    """True if the device waits for an answer, and reports nothing."""
    message_count: int
    """Number of messages among the entries: 1 for a frame without a position."""
    ack: bytes
    """The server's acknowledgement; empty if there is none."""
    answer: Answer | None
    """The frame as the answer to a command; None if it is none."""


def decode_frame(
    buffer: bytes | bytearray, limit: int
) -> Decoded[HexFrame] | Incomplete | Rejected | Fatal:
    """Decode the frame at the start of ``buffer``, where one of :data:`HEX_STARTS` stands."""
    return Fatal(0, "the HEX encoding is not supported", field=Rejection.CODEC.value)


def entries(frame: HexFrame, device_id: str, now: float) -> list[Entry]:
    """Return the entries of a frame.

    :param device_id: ID of the device that has sent the frame.
    :param now: seconds since 1970 (UTC), for a frame without a time.
    """
    return []
