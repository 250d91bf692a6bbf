"""Frames of simulated devices, with records like those of an FMB device.

The same number always gives the same record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import evolve

from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.simulator.fleet import simulated_imei
from tracker.vendors.teltonika.avl import CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.content import decode_data
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.positions import entries

#: IO elements of a typical record.
ELEMENTS: Final = 19

_START: Final = 1_790_000_000_000  # milliseconds since 1970
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15  # Fibonacci hashing varies the values
# South-western corner of the positions, in 1e-7 degrees.
_LONGITUDE: Final = 252_000_000
_LATITUDE: Final = 546_000_000

#: Id, width in bytes and largest value of elements of the FMB family. A device sends about the
#: first 19 by default; the widths of the first few are mixed.
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
#: Maximum number of elements of :func:`record`.
MAX_ELEMENTS: Final = len(_ELEMENTS)


def record(number: int, elements: int = ELEMENTS, layouts: int = 1) -> Record:
    """Return a record of Codec 8 Extended; each number gives a different one.

    :param elements: number of IO elements, up to :data:`MAX_ELEMENTS`.
    :param layouts: number of sets of elements among which the records alternate: all elements,
        all but the last, all but the last two, …
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
                    (element_id, width, varied * element_id % (max_value + 1))
                    for element_id, width, max_value in _ELEMENTS[:elements]
                ),
                key=lambda element: element[1],
            )
        ),
    )


def packet(first: int, records: int, elements: int = ELEMENTS, layouts: int = 1) -> bytes:
    """Return the data of a frame with ``records`` records, the first of number ``first``."""
    numbers = range(first, first + records)
    return encode_packet(CODEC_8E, [record(number, elements, layouts) for number in numbers])


def device_frames(device: int, records: int, frames: int, layouts: int = 1) -> list[bytes]:
    """Return frames of one device; each record is unique among all devices."""
    starts = range(device * records * frames, (device + 1) * records * frames, records)
    return [encode_frame(packet(start, records, layouts=layouts)) for start in starts]


def fleet_entries(devices: int, records: int, total: int) -> Iterator[Entry]:
    """Yield the stream entries of devices that record once per second and send alternately.

    :param records: records in a packet; they are consecutive in the stream.
    :param total: minimum number of entries; each has a unique device and time.
    """
    for sent in range(-(-total // records)):
        packet_number, device = divmod(sent, devices)
        second = packet_number * records
        packet_ = [
            evolve(
                record(sent * records + each),
                timestamp=_START + (second + each) * 1000 + device * 7919 % 1000,
            )
            for each in range(records)
        ]
        yield from stream_entries(encode_packet(CODEC_8E, packet_), simulated_imei(device))


def stream_entries(data: bytes, device_id: str) -> Sequence[Entry]:
    """Return the stream entries of the data of a frame, by the general decoder.

    :raises ValueError: if the data is invalid.
    """
    outcome = decode_data(data)
    if not isinstance(outcome, Decoded):
        raise ValueError(outcome.reason)
    return entries(device_id, outcome.value, 0.0, ignore_repeated_id)


def ignore_repeated_id() -> None:
    """Ignore an IO ID that occurs more than once; these records have none."""
