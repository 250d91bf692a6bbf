"""AVL packets: the position records of Codec 8, Codec 8 Extended and Codec 16.

An AVL packet is the data of a frame: codec id, count of records, records, and the count
again. A record has 24 bytes with its time, coordinates and motion, then IO elements in groups
by the width of their values. The codecs differ in the width of ids and counts. Only Codec 8
Extended has a last group of variable-length values; only Codec 16 has a generation type.
Source: Teltonika wiki, "Codec", chapters "Codec 8", "Codec 8 Extended", "Codec 16". Captured
frames show that Codec 16 counts elements in one byte.

The firmware of some devices sends Codec 8 with a fifth group in each record: a count, then IDs
with values of 16 bytes. The codec id does not tell. Such a packet contradicts itself when it is
read as Codec 8; only then it is read again, with five groups. A packet that contradicts itself
both ways is rejected. Source: two captures in the tests of a public decoder, one of them with such
values. No capture shows this group in another codec.

Values are unsigned, as on the wire: which ids are signed depends on the device's model, which
the protocol does not transmit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.position import MAX_TIMESTAMP_MS
from tracker.wording import counted

#: Smallest size of the data of a frame or datagram: the codec id and two counts.
MIN_DATA_BYTES: Final = 3

#: ``struct`` format of the fields before the event: timestamp, priority, longitude, latitude,
#: altitude, angle, satellites, speed.
RECORD_HEAD_FORMAT: Final = "QBiihHBH"
#: Width of a value in bytes → its ``struct`` format, in the order of the groups.
VALUE_FORMAT: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
#: Width of the values in the fifth group of :data:`CODEC_8_FIVE_GROUPS`, which are bytes.
FIFTH_WIDTH: Final = 16

#: The field that is wrong if bytes follow the last record.
_RECORDS: Final = "records"
_RECORD_HEAD: Final = struct.Struct(f">{RECORD_HEAD_FORMAT}")
_BYTE: Final = struct.Struct("B")


@frozen
class Codec:
    """Layout of IO elements in one codec."""

    name: str
    """Name of the codec in the ``codec`` field of a stream entry."""
    codec_id: int
    event: struct.Struct = field(repr=False)
    """Id of the element that caused the record."""
    count: struct.Struct = field(repr=False)
    """Number of elements, in total and in each group."""
    element: dict[int, struct.Struct] = field(repr=False)
    """Width of the value in bytes → layout of id and value, in the order of the groups."""
    variable: struct.Struct | None = field(repr=False)
    """Id and length of a variable-length value; None if the codec has no such values."""
    generation: bool
    """True if a record has a generation type."""


def _codec(
    name: str,
    codec_id: int,
    id_format: str,
    count_format: str,
    *,
    variable: struct.Struct | None = None,
    generation: bool = False,
    fifth_group: bool = False,
) -> Codec:
    formats = VALUE_FORMAT | ({FIFTH_WIDTH: f"{FIFTH_WIDTH}s"} if fifth_group else {})
    element = {width: struct.Struct(f">{id_format}{value}") for width, value in formats.items()}
    event, count = struct.Struct(f">{id_format}"), struct.Struct(f">{count_format}")
    return Codec(name, codec_id, event, count, element, variable, generation)


CODEC_8: Final = _codec("8", 0x08, "B", "B")
CODEC_8E: Final = _codec("8E", 0x8E, "H", "H", variable=struct.Struct(">HH"))
CODEC_16: Final = _codec("16", 0x10, "H", "B", generation=True)
CODEC_8_FIVE_GROUPS: Final = _codec("8", CODEC_8.codec_id, "B", "B", fifth_group=True)
#: The codec of each id, as far as the id tells.
CODECS: Final = {codec.codec_id: codec for codec in (CODEC_8, CODEC_8E, CODEC_16)}


Element = tuple[int, int, int | bytes]
"""ID, width in bytes, and value: bytes if the width is :data:`FIFTH_WIDTH`."""


@frozen
class Record:
    """One AVL record, in the units of the wire.

    ``timestamp`` is in milliseconds since 1970 (UTC), ``longitude`` and ``latitude`` are in
    1e-7 degrees, ``altitude`` in metres, ``angle`` in degrees from north, ``speed`` in km/h.
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
    elements: tuple[Element, ...] = ()
    """The elements in the order of the wire: by width, narrowest first."""
    variable: tuple[tuple[int, bytes], ...] = ()
    """(id, value) of the variable-length elements of Codec 8 Extended."""
    generation: int | None = None
    """Generation type of Codec 16: 0 on exit, 1 on entrance, 2 on both, 4 hysteresis,
    5 on change, 6 eventual, 7 periodical."""


@frozen
class Packet:
    """The records of one frame, in the order of the wire."""

    codec: Codec
    records: tuple[Record, ...]


def decode_packet(data: bytes) -> Decoded[Packet] | Rejected:
    """Decode the data of a frame with a correct checksum.

    :return: ``Rejected`` if the codec is unknown, or if counts contradict each other or the
        size; its ``offset`` is that of the wrong field, counted from the codec id.
    """
    size = len(data)
    if size < MIN_DATA_BYTES:
        return Rejected(
            size,
            0,
            f"data of {counted(size, 'byte')} is too short: the minimum is {MIN_DATA_BYTES}",
            field="data",
            expected=f"{MIN_DATA_BYTES} bytes or more",
            found=counted(size, "byte"),
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
    if differ := check_counts(data):
        return differ
    outcome = _decode_records(codec, data)
    if codec is CODEC_8 and isinstance(outcome, Rejected):
        other = _decode_records(CODEC_8_FIVE_GROUPS, data)
        if isinstance(other, Decoded) and not _is_shifted(other.value, outcome):
            return other
    return outcome


def _is_shifted(packet: Packet, outcome: Rejected) -> bool:
    """Return True if a packet of five groups is more likely one of four, with stray zero bytes.

    The fifth count of a record is then the first byte of the next record. So that record begins
    one byte too late: with a time after the year 9999.

    :param outcome: that of reading four groups.
    """
    return outcome.field == _RECORDS and any(
        record.timestamp > MAX_TIMESTAMP_MS for record in packet.records[1:]
    )


def _decode_records(codec: Codec, data: bytes) -> Decoded[Packet] | Rejected:
    size = len(data)
    count = data[1]
    records = []
    offset = 2
    end = size - 1
    for number in range(1, count + 1):
        start = offset
        try:
            record, offset = _decode_record(codec, data, offset, end)
        except (struct.error, _BadRecord) as error:
            reason = (
                error if isinstance(error, _BadRecord) else "extends past the end of the packet"
            )
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
    return check_end(data, offset) or Decoded(Packet(codec, tuple(records)), size)


def check_counts(data: bytes) -> Rejected | None:
    """Return ``Rejected`` if the two counts of records differ, else None."""
    size = len(data)
    count, count_again = data[1], data[-1]
    if count == count_again:
        return None
    return Rejected(
        size,
        size - 1,
        f"record counts differ: {count} before the records, {count_again} after them",
        field="second count of records",
        expected=str(count),
        found=str(count_again),
    )


def check_end(data: bytes, offset: int) -> Rejected | None:
    """Return ``Rejected`` unless the second count follows directly at ``offset``, else None.

    :param offset: end of the last record.
    """
    size = len(data)
    left = size - 1 - offset
    if not left:
        return None
    return Rejected(
        size,
        offset,
        f"unexpected data after the last record: {counted(left, 'byte')}",
        field=_RECORDS,
        expected="the second count",
        found=f"{counted(left, 'byte')} before it",
    )


class _BadRecord(Exception):
    """A record contradicts itself."""


def _decode_record(codec: Codec, data: bytes, offset: int, end: int) -> tuple[Record, int]:
    head = _RECORD_HEAD.unpack_from(data, offset)
    offset += _RECORD_HEAD.size
    count = codec.count
    (event,) = codec.event.unpack_from(data, offset)
    offset += codec.event.size
    generation = None
    if codec.generation:
        (generation,) = _BYTE.unpack_from(data, offset)
        offset += _BYTE.size
    (total,) = count.unpack_from(data, offset)
    offset += count.size
    elements: list[Element] = []
    for width, layout in codec.element.items():
        (number,) = count.unpack_from(data, offset)
        offset += count.size
        group_end = offset + number * layout.size
        if group_end > end:
            raise _BadRecord(
                f"{width}-byte elements (count {number}) extend past the end of the packet"
            )
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
                    f"element {element_id} of {counted(length, 'byte')} "
                    "extends past the end of the packet"
                )
            variable.append((element_id, data[offset : offset + length]))
            offset += length
    if offset > end:
        raise _BadRecord("extends past the end of the packet")
    if total != len(elements) + len(variable):
        raise _BadRecord(
            f"element counts differ: {total} in total, {len(elements) + len(variable)} in groups"
        )
    longitude, latitude, altitude, angle, satellites, speed = head[2:]
    record = Record(
        head[0],
        head[1],
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


#: Fields of :data:`_RECORD_HEAD` and their sizes.
_RECORD_HEAD_FIELDS: Final = (
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
    """The first invalid field of a record."""

    offset: int
    field: str
    expected: str
    found: str


@define
class _FieldReader:
    """Reader of a record field by field, up to the second count of the packet."""

    data: bytes
    offset: int
    end: int

    def read(self, field: str, size: int) -> int:
        """Return the next field as an unsigned integer.

        :raises _Truncated: if the packet ends before the field does.
        """
        if self.offset + size > self.end:
            left = f"{counted(self.end - self.offset, 'byte')} up to the second count"
            raise _Truncated(_Fault(self.offset, field, counted(size, "byte"), left))
        value = int.from_bytes(self.data[self.offset : self.offset + size], "big")
        self.offset += size
        return value


class _Truncated(Exception):
    """A record is truncated."""

    def __init__(self, fault: _Fault) -> None:
        super().__init__(fault.field)
        self.fault = fault


def _locate(codec: Codec, data: bytes, start: int, end: int) -> _Fault:
    """Return the field at which :func:`_decode_record` failed.

    That function reads whole groups at once, for speed; this one reads field by field.
    """
    fields = _FieldReader(data, start, end)
    try:
        for name, size in _RECORD_HEAD_FIELDS:
            fields.read(name, size)
        fields.read("event", codec.event.size)
        if codec.generation:
            fields.read("generation", _BYTE.size)
        total_offset = fields.offset
        total, counted = fields.read("total of elements", codec.count.size), 0
        for width, layout in codec.element.items():
            number = fields.read(f"count of {width}-byte elements", codec.count.size)
            fields.read(f"{width}-byte elements", number * layout.size)
            counted += number
        if codec.variable is not None:
            number = fields.read("count of variable elements", codec.count.size)
            for _ in range(number):
                element_id = fields.read("id of a variable element", codec.event.size)
                length = fields.read(f"length of element {element_id}", codec.count.size)
                fields.read(f"element {element_id}", length)
            counted += number
    except _Truncated as truncated:
        return truncated.fault
    return _Fault(total_offset, "total of elements", str(counted), str(total))


def encode_packet(codec: Codec, records: Sequence[Record]) -> bytes:
    """Return the data of a frame with these records: the inverse of :func:`decode_packet`.

    :raises ValueError: if the records are more than 255, or a value does not fit its field.
    """
    if len(records) > 255:
        raise ValueError(
            f"{counted(len(records), 'record')} are too many: a packet holds at most 255"
        )
    count = bytes((len(records),))
    try:
        body = b"".join(_encode_record(codec, record) for record in records)
    except struct.error as error:
        raise ValueError(f"codec {codec.name} cannot encode the record: {error}") from None
    return b"".join((bytes((codec.codec_id,)), count, body, count))


def _encode_record(codec: Codec, record: Record) -> bytes:
    if unknown := {width for _, width, _ in record.elements} - codec.element.keys():
        *others, last = codec.element
        widths = f"{', '.join(map(str, others))} and {last}"
        raise ValueError(f"element width {min(unknown)} is not valid: widths in bytes are {widths}")
    for element_id, width, value in record.elements:
        if isinstance(value, bytes) and len(value) != width:  # which struct would pad or cut
            found = counted(len(value), "byte")
            raise ValueError(f"element {element_id}: {found} are not a value of {width}")
    if record.variable and codec.variable is None:
        raise ValueError(f"codec {codec.name} has no variable-length elements")
    if codec.generation is not (record.generation is not None):
        raise ValueError(
            f"codec {codec.name}: a generation type is required in Codec 16, and only there"
        )
    count = codec.count.pack
    parts = [
        _RECORD_HEAD.pack(
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
    for width, layout in codec.element.items():
        group = [element for element in record.elements if element[1] == width]
        parts.append(count(len(group)))
        parts.extend(layout.pack(element_id, value) for element_id, _, value in group)
    if codec.variable is not None:
        parts.append(count(len(record.variable)))
        for element_id, value in record.variable:
            parts.append(codec.variable.pack(element_id, len(value)) + value)
    return b"".join(parts)
