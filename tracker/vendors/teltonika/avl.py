"""AVL packets: the position records of Codec 8, Codec 8 Extended and Codec 16.

A packet is the data of a frame: codec id, count of records, records, the count
again. A record is 24 bytes of time and place, then IO elements in groups by the
width of their value. The codecs differ in the width of ids and counts; Codec 8
Extended alone has a last group of variable-length values, Codec 16 alone says how
the record came about.
Source: Teltonika wiki, "Codec", chapters "Codec 8", "Codec 8 Extended", "Codec 16";
that Codec 16 counts elements in one byte is what captured frames show.

Values are unsigned as on the wire: which ids are signed depends on the device's
model, which the wire does not tell.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen

from tracker.outcomes import Decoded, Rejected

#: Codec id and two counts: less than this cannot be the data of a frame or datagram.
SHORTEST_DATA: Final = 3

#: How ``struct`` writes, big-endian: timestamp, priority, longitude, latitude, altitude,
#: angle, satellites, speed.
PLACE_FORMAT: Final = "QBiihHBH"
#: Widths of the groups of elements, in bytes and in their order.
WIDTHS: Final = (1, 2, 4, 8)
#: Width → how ``struct`` writes such a value.
VALUE_FORMAT: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}

_PLACE: Final = struct.Struct(f">{PLACE_FORMAT}")
_BYTE: Final = struct.Struct("B")


@frozen
class Codec:
    """How one codec lays out IO elements."""

    name: str
    """As in a stream entry's ``codec`` field."""
    codec_id: int
    event: struct.Struct = field(repr=False)
    """Id of the element that caused the record."""
    count: struct.Struct = field(repr=False)
    """Number of elements, in all and in each group."""
    element: dict[int, struct.Struct] = field(repr=False)
    """Value width in bytes → id and value."""
    variable: struct.Struct | None = field(repr=False)
    """Id and length of a variable-length value, where the codec has them."""
    generation: bool
    """Whether a record tells how it came about."""


def _codec(
    name: str,
    codec_id: int,
    id_format: str,
    count_format: str,
    *,
    variable: struct.Struct | None = None,
    generation: bool = False,
) -> Codec:
    element = {width: struct.Struct(f">{id_format}{VALUE_FORMAT[width]}") for width in WIDTHS}
    event, count = struct.Struct(f">{id_format}"), struct.Struct(f">{count_format}")
    return Codec(name, codec_id, event, count, element, variable, generation)


CODEC_8: Final = _codec("8", 0x08, "B", "B")
CODEC_8E: Final = _codec("8E", 0x8E, "H", "H", variable=struct.Struct(">HH"))
CODEC_16: Final = _codec("16", 0x10, "H", "B", generation=True)
CODECS: Final = {codec.codec_id: codec for codec in (CODEC_8, CODEC_8E, CODEC_16)}


@frozen
class Record:
    """One AVL record, in the wire's own units.

    ``timestamp`` in milliseconds since 1970 (UTC); ``longitude`` and ``latitude`` in
    1e-7 degrees; altitude in metres, angle in degrees from north, speed in km/h.
    """

    timestamp: int
    priority: int
    longitude: int
    latitude: int
    altitude: int
    angle: int
    satellites: int
    speed: int
    event: int
    elements: tuple[tuple[int, int, int], ...] = ()
    """(id, width in bytes, value) in the order of the wire: by width, narrow first."""
    variable: tuple[tuple[int, bytes], ...] = ()
    """(id, value) of the variable-length elements of Codec 8 Extended."""
    generation: int | None = None
    """Generation type of Codec 16: 0 on exit, 1 on entrance, 2 on both, 4 hysteresis,
    5 on change, 6 eventual, 7 periodical."""


@frozen
class Packet:
    """The records that one frame carries, in the order of the wire."""

    codec: Codec
    records: tuple[Record, ...]


def decode_packet(data: bytes) -> Decoded[Packet] | Rejected:
    """Read the data of a frame whose checksum was right.

    :return: ``Rejected`` where counts contradict each other or the bytes, or the
        codec is unknown; its ``offset`` counts from the codec id, and is that of the
        very field.
    """
    size = len(data)
    if size < SHORTEST_DATA:
        return Rejected(
            size,
            0,
            f"{size} bytes are too short for a packet",
            field="data",
            expected="3 bytes or more",
            found=f"{size} bytes",
        )
    codec = CODECS.get(data[0])
    if codec is None:
        return Rejected(
            size,
            0,
            f"unsupported codec {data[0]:#04x}",
            field="codec",
            expected="one of " + ", ".join(f"{codec_id:#04x}" for codec_id in sorted(CODECS)),
            found=f"{data[0]:#04x}",
        )
    if differ := maybe_counts_differ(data):
        return differ
    count = data[1]
    records = []
    offset = 2
    end = size - 1
    for number in range(1, count + 1):
        start = offset
        try:
            record, offset = _decode_record(codec, data, offset, end)
        except (struct.error, _BadRecord) as error:
            reason = error if isinstance(error, _BadRecord) else "runs past the packet's end"
            fault = _locate(codec, data, start, end)
            return Rejected(
                size,
                fault.offset,
                f"record {number} of {count}: {reason}",
                field=f"records[{number - 1}] {fault.field}",
                expected=fault.expected,
                found=fault.found,
            )
        records.append(record)
    return maybe_left_over(data, offset) or Decoded(Packet(codec, tuple(records)), size)


def maybe_counts_differ(data: bytes) -> Rejected | None:
    """The fault of data whose count of records is another at the end than at the start."""
    size = len(data)
    count, count_again = data[1], data[-1]
    if count == count_again:
        return None
    return Rejected(
        size,
        size - 1,
        f"{count} records at the start, {count_again} at the end",
        field="second count of records",
        expected=str(count),
        found=str(count_again),
    )


def maybe_left_over(data: bytes, offset: int) -> Rejected | None:
    """The fault of data whose last record ends at ``offset``, and not at the second count."""
    size = len(data)
    left = size - 1 - offset
    if not left:
        return None
    return Rejected(
        size,
        offset,
        f"{left} bytes after the last record",
        field="records",
        expected="the second count",
        found=f"{left} bytes before it",
    )


class _BadRecord(Exception):
    """The record contradicts itself."""


def _decode_record(codec: Codec, data: bytes, offset: int, end: int) -> tuple[Record, int]:
    place = _PLACE.unpack_from(data, offset)
    offset += _PLACE.size
    count = codec.count
    (event,) = codec.event.unpack_from(data, offset)
    offset += codec.event.size
    generation = None
    if codec.generation:
        (generation,) = _BYTE.unpack_from(data, offset)
        offset += _BYTE.size
    (total,) = count.unpack_from(data, offset)
    offset += count.size
    elements: list[tuple[int, int, int]] = []
    for width in WIDTHS:
        (number,) = count.unpack_from(data, offset)
        offset += count.size
        layout = codec.element[width]
        group_end = offset + number * layout.size
        if group_end > end:
            raise _BadRecord(f"{number} elements of {width} bytes run past the packet's end")
        elements.extend(
            (element_id, width, value)
            for element_id, value in layout.iter_unpack(data[offset:group_end])
        )
        offset = group_end
    variable: list[tuple[int, bytes]] = []
    if codec.variable is not None:
        (number,) = count.unpack_from(data, offset)
        offset += count.size
        for _ in range(number):
            element_id, length = codec.variable.unpack_from(data, offset)
            offset += codec.variable.size
            if offset + length > end:
                raise _BadRecord(
                    f"element {element_id} of {length} bytes runs past the packet's end"
                )
            variable.append((element_id, data[offset : offset + length]))
            offset += length
    if offset > end:
        raise _BadRecord("runs past the packet's end")
    if total != len(elements) + len(variable):
        raise _BadRecord(f"{total} elements announced, {len(elements) + len(variable)} there")
    longitude, latitude, altitude, angle, satellites, speed = place[2:]
    record = Record(
        place[0],
        place[1],
        longitude,
        latitude,
        altitude,
        angle,
        satellites,
        speed,
        event,
        tuple(elements),
        tuple(variable),
        generation,
    )
    return record, offset


#: Fields of :data:`_PLACE` and their sizes.
_PLACE_FIELDS: Final = (
    ("timestamp", 8),
    ("priority", 1),
    ("longitude", 4),
    ("latitude", 4),
    ("altitude", 2),
    ("angle", 2),
    ("satellites", 1),
    ("speed", 2),
)


@frozen
class _Fault:
    """The first field of a record that makes no sense."""

    offset: int
    field: str
    expected: str
    found: str


@define
class _Walk:
    """Goes through a record one field at a time, up to the packet's second count."""

    data: bytes
    offset: int
    end: int

    def step(self, field: str, size: int) -> int:
        """The field as an unsigned integer.

        :raises _Cut: where it does not fit.
        """
        if self.offset + size > self.end:
            left = f"{self.end - self.offset} bytes up to the second count"
            raise _Cut(_Fault(self.offset, field, f"{size} bytes", left))
        value = int.from_bytes(self.data[self.offset : self.offset + size], "big")
        self.offset += size
        return value


class _Cut(Exception):
    """The record ends before it is whole."""

    def __init__(self, fault: _Fault) -> None:
        super().__init__(fault.field)
        self.fault = fault


def _locate(codec: Codec, data: bytes, start: int, end: int) -> _Fault:
    """Which field it is for which :func:`_decode_record` gave up.

    That one reads whole groups at once, for speed; here each field is looked at.
    """
    walk = _Walk(data, start, end)
    try:
        for name, size in _PLACE_FIELDS:
            walk.step(name, size)
        walk.step("event", codec.event.size)
        if codec.generation:
            walk.step("generation", _BYTE.size)
        at_total = walk.offset
        total, there = walk.step("total of elements", codec.count.size), 0
        for width, layout in codec.element.items():
            number = walk.step(f"count of {width}-byte elements", codec.count.size)
            walk.step(f"{width}-byte elements", number * layout.size)
            there += number
        if codec.variable is not None:
            number = walk.step("count of variable elements", codec.count.size)
            for _ in range(number):
                element_id = walk.step("id of a variable element", codec.event.size)
                length = walk.step(f"length of element {element_id}", codec.count.size)
                walk.step(f"element {element_id}", length)
            there += number
    except _Cut as cut:
        return cut.fault
    return _Fault(at_total, "total of elements", str(there), str(total))


def encode_packet(codec: Codec, records: Sequence[Record]) -> bytes:
    """The data of a frame that carries these records: the inverse of :func:`decode_packet`.

    :raises ValueError: for more than 255 records, or a value that does not fit its field.
    """
    if len(records) > 255:
        raise ValueError(f"{len(records)} records: a packet holds 255")
    count = bytes((len(records),))
    try:
        body = b"".join(_encode_record(codec, record) for record in records)
    except struct.error as error:
        raise ValueError(f"codec {codec.name} cannot carry the record: {error}") from None
    return b"".join((bytes((codec.codec_id,)), count, body, count))


def _encode_record(codec: Codec, record: Record) -> bytes:
    if unknown := {width for _, width, _ in record.elements} - set(WIDTHS):
        raise ValueError(f"no codec has elements of {min(unknown)} bytes width")
    if record.variable and codec.variable is None:
        raise ValueError(f"codec {codec.name} has no variable-length elements")
    if codec.generation is not (record.generation is not None):
        raise ValueError(f"codec {codec.name}: the generation type belongs to Codec 16, always")
    count = codec.count.pack
    parts = [
        _PLACE.pack(
            record.timestamp,
            record.priority,
            record.longitude,
            record.latitude,
            record.altitude,
            record.angle,
            record.satellites,
            record.speed,
        ),
        codec.event.pack(record.event),
        b"" if record.generation is None else bytes((record.generation,)),
        count(len(record.elements) + len(record.variable)),
    ]
    for width in WIDTHS:
        group = [element for element in record.elements if element[1] == width]
        parts.append(count(len(group)))
        parts.extend(codec.element[width].pack(element_id, value) for element_id, _, value in group)
    if codec.variable is not None:
        parts.append(count(len(record.variable)))
        for element_id, value in record.variable:
            parts.append(codec.variable.pack(element_id, len(value)) + value)
    return b"".join(parts)
