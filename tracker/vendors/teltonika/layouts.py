"""Fast conversion of records to stream entries, by compiled layouts.

Nearly all records of a device have the same elements. The counts and ids of a record are compared
with those of a layout in one step. If they are equal, one ``struct.Struct`` unpacks the values and
one text template formats them. The text is the same as that of
:mod:`~tracker.vendors.teltonika.positions`, in a quarter of the time.

The configuration of a device determines its layouts. A fleet therefore shares a few.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from tracker.extra import record_extra
from tracker.position import (
    MAX_SAFE_INTEGER,
    MAX_TIMESTAMP_MS,
    Entry,
    has_fix,
    iso_milliseconds,
)
from tracker.vendors.teltonika.avl import (
    CODEC_8_FIVE_GROUPS,
    MIN_DATA_BYTES,
    RECORD_HEAD_FORMAT,
    VALUE_FORMAT,
    Codec,
    Packet,
    Record,
)

#: Layouts that a process keeps; a new one replaces the oldest.
MAX_LAYOUTS: Final = 1024
#: Layouts of one device that are tried on each record.
MAX_RECENT_LAYOUTS: Final = 4
#: Records with more elements are not compiled, to limit the memory of layouts.
MAX_ELEMENTS: Final = 128

_DEGREE: Final = 10_000_000
#: Number of values of a record before those of its elements: the event is the last one.
_BEFORE_ELEMENTS: Final = 9
_HEAD: Final = (
    '{"device_id":"%s","timestamp":"%s","latitude":%r,"longitude":%r,"altitude":%d,"angle":%d,'
    '"speed":%d,"satellites":%d,"priority":%d,"event":%d,"attributes":{'
)

_Key = tuple[int, tuple[tuple[int, int], ...]]
"""Codec id, and (id, width in bytes) of each element."""


class Layout:
    """The compiled layout of a record."""

    __slots__ = (
        *("_codec", "_codec_id", "_extra", "_extra_without_fix", "_fixed", "_generation"),
        *("_mask", "_template", "_unpack", "_wide", "size"),
    )

    def __init__(self, codec: Codec, elements: Sequence[tuple[int, int]]) -> None:
        """Compile a layout.

        :param elements: (id, width in bytes) in the order of the wire, each id once.
        """
        parts = list(_parts(codec, elements))
        compiled = struct.Struct(">" + "".join(part_format for part_format, _ in parts))
        fixed, mask = bytearray(), bytearray()
        for part_format, content in parts:
            size = struct.calcsize(f">{part_format}")
            fixed += content or bytes(size)
            mask += (b"\xff" if content else b"\x00") * size
        self.size = compiled.size
        """Size of a record in bytes."""
        self._codec = codec.name
        self._codec_id = codec.codec_id
        self._generation = codec.generation
        self._unpack = compiled.unpack_from
        self._fixed = int.from_bytes(fixed, "big")
        self._mask = int.from_bytes(mask, "big")
        attributes = ",".join(f'"{element_id}":%s' for element_id, _ in elements)
        tail = '},"generation_type":%d}' if codec.generation else "}}"
        self._template = _HEAD + attributes + tail
        self._extra = record_extra(elements, fix=None)
        self._extra_without_fix = record_extra(elements, fix=False)
        self._wide = [index for index, (_, width) in enumerate(elements) if width == 8]
        """Indexes of elements with values that JSON readers may round."""

    def fits(self, data: bytes, offset: int, end: int) -> bool:
        """Return True if the record at ``offset`` of a packet has this layout.

        :param end: offset of the second count of records.
        """
        if offset + self.size > end or data[0] != self._codec_id:
            return False
        record = int.from_bytes(data[offset : offset + self.size], "big")
        return record & self._mask == self._fixed

    def entry(self, device_id: str, data: bytes, offset: int) -> Entry | None:
        """Return the stream entry of a record that fits; None if its year exceeds 9999."""
        values = self._unpack(data, offset)
        timestamp, priority, longitude, latitude, altitude, angle, satellites, speed, event = (
            values[:_BEFORE_ELEMENTS]
        )
        if timestamp > MAX_TIMESTAMP_MS:
            return None
        elements = values[_BEFORE_ELEMENTS:]
        if self._generation:
            elements = (*elements[1:], elements[0])
        for index in self._wide:
            if elements[index] > MAX_SAFE_INTEGER:
                elements = self._exact(elements)
                break
        latitude, longitude = latitude / _DEGREE, longitude / _DEGREE
        fix = has_fix(latitude, longitude, satellites)
        time = iso_milliseconds(timestamp)
        payload = self._template % (
            device_id,
            time,
            latitude,
            longitude,
            altitude,
            angle,
            speed,
            satellites,
            priority,
            event,
            *elements,
        )
        extra = self._extra if fix else self._extra_without_fix
        return Entry(time, device_id, self._codec, payload, extra)

    def _exact(self, elements: tuple[int, ...]) -> tuple[int | str, ...]:
        changed: list[int | str] = list(elements)
        for index in self._wide:
            if elements[index] > MAX_SAFE_INTEGER:
                changed[index] = f'{{"__bigint":"{elements[index]}"}}'
        return tuple(changed)


def _parts(codec: Codec, elements: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bytes]]:
    """Yield the ``struct`` format of each part of a record, and its bytes if they are fixed."""

    def fixed(content: bytes) -> tuple[str, bytes]:
        return f"{len(content)}x", content

    yield RECORD_HEAD_FORMAT, b""
    yield codec.event.format.removeprefix(">"), b""
    if codec.generation:
        yield "B", b""
    yield fixed(codec.count.pack(len(elements)))
    for width, value_format in VALUE_FORMAT.items():
        group = [element_id for element_id, its_width in elements if its_width == width]
        yield fixed(codec.count.pack(len(group)))
        for element_id in group:
            yield fixed(codec.event.pack(element_id))
            yield value_format, b""
    if codec.variable is not None:
        yield fixed(codec.count.pack(0))


class Layouts:
    """Layouts of all devices of a process, in a limited number of slots."""

    def __init__(self, slots: int = MAX_LAYOUTS) -> None:
        self._slots: list[Layout] = []
        self._max_layouts = slots
        self._keys: list[_Key] = []
        self._slot_of: dict[_Key, int] = {}
        self._oldest = 0

    def __getitem__(self, slot: int) -> Layout:
        """Return the layout in a slot; another one may replace it later."""
        return self._slots[slot]

    def __len__(self) -> int:
        return len(self._slots)

    def slot(self, codec: Codec, record: Record) -> int | None:
        """Return the slot with the layout of this record; None if it cannot have one.

        A record with a repeated id, with elements of variable length or with a fifth group cannot
        have a layout.
        """
        if codec is CODEC_8_FIVE_GROUPS:
            return None
        ids = {element_id for element_id, _, _ in record.elements}
        if record.variable or len(ids) < len(record.elements) or len(ids) > MAX_ELEMENTS:
            return None
        elements = tuple((element_id, width) for element_id, width, _ in record.elements)
        key = (codec.codec_id, elements)
        slot = self._slot_of.get(key)
        if slot is None:
            slot = self._slot_of[key] = self._put(key, Layout(codec, elements))
        return slot

    def _put(self, key: _Key, layout: Layout) -> int:
        if len(self._slots) < self._max_layouts:
            self._slots.append(layout)
            self._keys.append(key)
            return len(self._slots) - 1
        slot = self._oldest
        self._oldest = (slot + 1) % self._max_layouts
        del self._slot_of[self._keys[slot]]
        self._slots[slot], self._keys[slot] = layout, key
        return slot


class RecentLayouts:
    """Layouts that one device has used recently, the latest first."""

    __slots__ = ("_layouts", "_slots", "_unknown_record")

    def __init__(self, layouts: Layouts) -> None:
        self._layouts = layouts
        self._slots: tuple[int, ...] = ()
        self._unknown_record = 0  # index of the record without a known layout

    def entries(self, device_id: str, data: bytes, max_records: int) -> list[Entry] | None:
        """Return the stream entries of a packet; None if a record has no known layout.

        :param data: codec id to second count.
        """
        self._unknown_record = 0
        if not self._slots or len(data) < MIN_DATA_BYTES:
            return None
        count = data[1]
        if count != data[-1] or not 0 < count <= max_records:
            return None
        layout = self._layouts[self._slots[0]]
        entries: list[Entry] = []
        offset, end = 2, len(data) - 1
        for number in range(count):
            if not layout.fits(data, offset, end):
                self._unknown_record = number
                other = self._other(data, offset, end)
                if other is None:
                    return None
                layout = other
            entry = layout.entry(device_id, data, offset)
            if entry is None:
                return None
            entries.append(entry)
            offset += layout.size
        return entries if offset == end else None

    def _other(self, data: bytes, offset: int, end: int) -> Layout | None:
        for slot in self._slots:
            layout = self._layouts[slot]
            if layout.fits(data, offset, end):
                self._use(slot)
                return layout
        return None

    def learn(self, packet: Packet) -> None:
        """Add the layout that was unknown when this packet was read.

        At most one layout is added per packet, because a peer could send a new one in each record.
        """
        if packet.records:
            slot = self._layouts.slot(packet.codec, packet.records[self._unknown_record])
            if slot is not None:
                self._use(slot)

    def _use(self, slot: int) -> None:
        self._slots = (slot, *(other for other in self._slots if other != slot))[
            :MAX_RECENT_LAYOUTS
        ]
