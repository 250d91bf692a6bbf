"""What a simulated device sends: records as an FMB's, and the same record for the same number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import evolve

from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.vendors.teltonika.avl import CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.content import decode_data
from tracker.vendors.teltonika.frame import encode_frame
from tracker.vendors.teltonika.positions import entries

#: IO elements of a usual record.
ELEMENTS: Final = 19

_START: Final = 1_790_000_000_000  # milliseconds since 1970
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15  # Fibonacci hashing, for want of a drive
# Of the places' south-western corner, in 1e-7 degrees.
_LONGITUDE: Final = 252_000_000
_LATITUDE: Final = 546_000_000

#: Id, width in bytes and largest value, as the dictionary of the FMB family has them. The
#: first 19 are what such a device sends by default or nearly so; the widths of the first
#: few are mixed, too.
_ELEMENTS: Final = (
    *((239, 1, 1), (66, 2, 14_800), (16, 4, 400_000_000), (240, 1, 1), (78, 8, 0)),
    *((21, 1, 5), (181, 2, 30), (241, 4, 24_800), (69, 1, 3), (182, 2, 20)),
    *((200, 1, 4), (24, 2, 130), (199, 4, 9_000), (80, 1, 5), (205, 2, 65_535)),
    *((206, 2, 65_535), (67, 2, 4_200), (68, 2, 0), (113, 1, 100)),
    *((1, 1, 1), (9, 2, 30_000), (72, 4, 1_250), (11, 8, 9 << 59), (179, 1, 1)),
    *((6, 2, 30_000), (73, 4, 1_250), (2, 1, 1), (13, 2, 32_767), (14, 8, 9 << 59)),
    *((17, 2, 8_000), (18, 2, 8_000), (19, 2, 8_000), (74, 4, 1_250), (3, 1, 1)),
    *((180, 1, 1), (12, 4, 90_000), (15, 2, 1_000), (75, 4, 1_250), (207, 8, 1 << 48), (4, 4, 99)),
)
#: The most that :func:`record` can be asked for.
MAX_ELEMENTS: Final = len(_ELEMENTS)


def imei(number: int) -> str:
    """The IMEI of a device."""
    return f"35{number:013d}"


def record(number: int, elements: int = ELEMENTS, layouts: int = 1) -> Record:
    """A record of Codec 8 Extended; each number gives another.

    :param elements: how many IO elements it has, up to :data:`MAX_ELEMENTS`.
    :param layouts: with more than 1, records in turn lack none of these elements, the last
        of them, the last two, …, as those of a device that does not always send all.
    """
    elements = max(0, elements - number % layouts)
    varied = number * _SPREAD % (1 << 64)
    return Record(
        timestamp=_START + number * 1000 + varied % 1000,
        priority=0,
        longitude=_LONGITUDE + varied % 999_983,
        latitude=_LATITUDE + varied % 999_979,
        altitude=varied % 250,
        angle=varied % 360,
        satellites=7 + varied % 12,
        speed=varied % 120,
        event=0,
        elements=tuple(
            sorted(
                (
                    (element_id, width, varied * element_id % (most + 1))
                    for element_id, width, most in _ELEMENTS[:elements]
                ),
                key=lambda element: element[1],
            )
        ),
    )


def packet(first: int, records: int, elements: int = ELEMENTS, layouts: int = 1) -> bytes:
    """The data of a frame with the records ``first``, ``first + 1``, …"""
    numbers = range(first, first + records)
    return encode_packet(CODEC_8E, [record(number, elements, layouts) for number in numbers])


def device_frames(device: int, records: int, frames: int, layouts: int = 1) -> list[bytes]:
    """Some frames of one device, no record twice among them or among other devices'."""
    starts = range(device * records * frames, (device + 1) * records * frames, records)
    return [encode_frame(packet(start, records, layouts=layouts)) for start in starts]


def fleet_entries(devices: int, records: int, total: int) -> Iterator[Entry]:
    """What is in the stream when devices that record once a second all send in turn.

    :param records: in a packet, one after the other in the stream.
    :param total: at least so many entries; no two have device and time in common.
    """
    for sent in range(-(-total // records)):
        turn, device = divmod(sent, devices)
        second = turn * records
        packet_ = [
            evolve(
                record(sent * records + each),
                timestamp=_START + (second + each) * 1000 + device * 7919 % 1000,
            )
            for each in range(records)
        ]
        yield from stream_entries(encode_packet(CODEC_8E, packet_), imei(device))


def stream_entries(data: bytes, device_id: str) -> Sequence[Entry]:
    """The stream entries of a frame's data, by the general decoder.

    :raises ValueError: when the data makes no sense.
    """
    outcome = decode_data(data)
    if not isinstance(outcome, Decoded):
        raise ValueError(outcome.reason)
    return entries(device_id, outcome.value, 0.0, nothing)


def nothing() -> None:
    """What is done about an element that occurs twice; none does here."""
