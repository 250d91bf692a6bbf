"""Compiled layouts: the same entries as without layouts, or none."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden import GOLDEN, IMEI, Golden
from tests.unit.vendors.teltonika.strategies import codecs, packets, records
from tracker.outcomes import Decoded, Rejected
from tracker.position import MAX_TIMESTAMP_MS, Entry
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8E,
    CODEC_16,
    Codec,
    Packet,
    Record,
    decode_packet,
    encode_packet,
)
from tracker.vendors.teltonika.layouts import (
    MAX_ELEMENTS,
    MAX_RECENT_LAYOUTS,
    Layouts,
    RecentLayouts,
)
from tracker.vendors.teltonika.positions import entries
from tracker.vendors.teltonika.reader import EntryReader, Reading

RECORD = Record(1_710_504_600_000, 1, 198_187_000, 413_275_000, 110, 214, 14, 43, 239)


def with_ids(*ids: int, codec: Codec = CODEC_8E) -> Packet:
    """Return a packet of one record with one-byte elements of these ids."""
    generation = 7 if codec is CODEC_16 else None
    elements = tuple((element_id, 1, 5) for element_id in ids)
    return Packet(codec, (attrs.evolve(RECORD, elements=elements, generation=generation),))


def encoded(packet: Packet) -> bytes:
    return encode_packet(packet.codec, packet.records)


def entries_without_layouts(packet: Packet) -> list[Entry]:
    return entries(IMEI, packet, 0.0, lambda: None)


def layouts_of(*known: Packet) -> RecentLayouts:
    """Return the layouts of a device that has sent these packets."""
    recent = RecentLayouts(Layouts())
    for packet in known:
        recent.learn(packet)
    return recent


@given(packets(), packets())
def test_layouts_do_not_change_the_entries_of_a_packet(known: Packet, packet: Packet) -> None:
    recent = layouts_of(known, packet)
    for read in (packet, known):
        made = recent.entries(IMEI, encoded(read), 255)
        assert made is None or made == entries_without_layouts(read)


@given(codecs.flatmap(lambda codec: st.tuples(st.just(codec), records(codec), records(codec))))
def test_known_layout_converts_other_values_correctly(
    given_: tuple[Codec, Record, Record],
) -> None:
    codec, record, other = given_
    ids = {element_id for element_id, _, _ in record.elements}
    record = attrs.evolve(
        record,
        timestamp=record.timestamp % MAX_TIMESTAMP_MS,
        elements=record.elements if len(ids) == len(record.elements) else (),
        variable=(),
    )
    values = [value for _, _, value in other.elements] + [0] * len(record.elements)
    elements = [
        (element_id, width, value % 256**width)
        for (element_id, width, _), value in zip(record.elements, values, strict=False)
    ]
    other = attrs.evolve(
        other,
        timestamp=other.timestamp % MAX_TIMESTAMP_MS,
        elements=tuple(elements),
        variable=(),
    )
    packet = Packet(codec, (record, other, record))
    made = layouts_of(Packet(codec, (record,))).entries(IMEI, encoded(packet), 255)
    assert made == entries_without_layouts(packet)


@given(packets(), st.data())
def test_damaged_packet_is_read_the_same_with_and_without_layouts(
    packet: Packet, data: st.DataObject
) -> None:
    damaged = bytearray(encoded(packet))
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.integers(0, len(damaged) - 1))
        damaged[offset] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(3, len(damaged))) :]
    experienced, new = EntryReader(Layouts(), 255), EntryReader(Layouts(), 255)
    experienced.read(IMEI, encoded(packet), 0.0, lambda: None)
    read = [reader.read(IMEI, bytes(damaged), 0.0, lambda: None) for reader in (experienced, new)]
    assert read[0] == read[1]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_packets_give_the_same_entries_with_layouts(golden: Golden) -> None:
    outcome = decode_packet(golden.data)
    assert isinstance(outcome, Decoded)
    recent = RecentLayouts(Layouts())
    made = None
    for _ in outcome.value.records:  # each packet adds one layout
        made = recent.entries(IMEI, golden.data, 255)
        if made is None:
            recent.learn(outcome.value)
    made = made or recent.entries(IMEI, golden.data, 255)
    if any(record.variable for record in outcome.value.records):
        assert made is None
    else:
        assert made == entries_without_layouts(outcome.value)


@pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E, CODEC_16], ids=lambda codec: codec.name)
@pytest.mark.parametrize("value", [0, 2**53 - 1, 2**53, 2**64 - 1])
def test_large_values_are_exact_in_entries_made_by_layout(codec: Codec, value: int) -> None:
    generation = 3 if codec is CODEC_16 else None
    elements = ((1, 1, 255), (78, 8, value), (11, 8, 2**63))
    packet = Packet(codec, (attrs.evolve(RECORD, elements=elements, generation=generation),))
    made = layouts_of(packet).entries(IMEI, encoded(packet), 255)
    assert made == entries_without_layouts(packet)
    assert ("__bigint" in made[0].payload.partition('"11"')[0]) is (value > 2**53 - 1)


@pytest.mark.parametrize("satellites", [0, 1, 255])
@pytest.mark.parametrize("longitude", [0, -1, 1_800_000_000, 1_800_000_001, -1_800_000_001])
@pytest.mark.parametrize("latitude", [0, 1, -900_000_000, -900_000_001, 900_000_001])
def test_fix_of_an_entry_made_by_layout_is_that_of_its_position(
    latitude: int, longitude: int, satellites: int
) -> None:
    packet = with_ids(1)
    record = attrs.evolve(
        packet.records[0], latitude=latitude, longitude=longitude, satellites=satellites
    )
    moved = Packet(CODEC_8E, (record,))
    made = layouts_of(packet).entries(IMEI, encoded(moved), 255)
    assert made == entries_without_layouts(moved)


def test_record_after_the_year_9999_gets_no_entry_by_layout() -> None:
    packet = with_ids(1)
    late = attrs.evolve(packet.records[0], timestamp=MAX_TIMESTAMP_MS + 1)
    last = attrs.evolve(packet.records[0], timestamp=MAX_TIMESTAMP_MS)
    recent = layouts_of(packet)
    assert recent.entries(IMEI, encode_packet(CODEC_8E, [late]), 255) is None
    assert recent.entries(IMEI, encode_packet(CODEC_8E, [last]), 255) is not None


@pytest.mark.parametrize(
    "packet",
    [
        with_ids(1, 1),
        Packet(CODEC_8E, (attrs.evolve(RECORD, variable=((385, b"x"),)),)),
        with_ids(*range(MAX_ELEMENTS + 1)),
        Packet(CODEC_8, ()),
    ],
)
def test_record_that_cannot_have_a_layout_is_not_learned(packet: Packet) -> None:
    layouts = Layouts()
    recent = RecentLayouts(layouts)
    recent.learn(packet)
    assert recent.entries(IMEI, encoded(packet), 255) is None
    assert len(layouts) == 0


@pytest.mark.parametrize(("limit", "read"), [(3, True), (2, False)])
def test_layouts_read_no_packet_with_more_records_than_the_limit(limit: int, read: bool) -> None:
    packet = Packet(CODEC_8E, with_ids(1).records * 3)
    assert (layouts_of(packet).entries(IMEI, encoded(packet), limit) is not None) is read


def test_layout_of_another_codec_is_not_used() -> None:
    recent = layouts_of(with_ids(1, codec=CODEC_8), with_ids(1, codec=CODEC_16))
    for codec in (CODEC_8, CODEC_16):
        packet = with_ids(1, codec=codec)
        assert recent.entries(IMEI, encoded(packet), 255) == entries_without_layouts(packet)
    assert recent.entries(IMEI, encoded(with_ids(1)), 255) is None


def test_packet_may_mix_records_of_several_layouts() -> None:
    kinds = [with_ids(1), with_ids(1, 2), with_ids(1, 2, 3), with_ids(4)]
    assert len(kinds) == MAX_RECENT_LAYOUTS
    mixed = Packet(CODEC_8E, tuple(kind.records[0] for kind in (*kinds, *reversed(kinds))))
    recent = RecentLayouts(Layouts())
    for _ in kinds:
        assert recent.entries(IMEI, encoded(mixed), 255) is None
        recent.learn(mixed)
    assert recent.entries(IMEI, encoded(mixed), 255) == entries_without_layouts(mixed)


def test_replaced_layout_is_learned_again() -> None:
    layouts = Layouts(slots=2)
    first, second = RecentLayouts(layouts), RecentLayouts(layouts)
    first.learn(with_ids(1))
    for number in range(2, 5):
        second.learn(with_ids(number))
    assert len(layouts) == 2
    assert first.entries(IMEI, encoded(with_ids(1)), 255) is None
    first.learn(with_ids(1))
    assert first.entries(IMEI, encoded(with_ids(1)), 255) == entries_without_layouts(with_ids(1))
    assert second.entries(IMEI, encoded(with_ids(4)), 255) == entries_without_layouts(with_ids(4))


def test_devices_of_one_configuration_share_a_layout() -> None:
    layouts = Layouts()
    for _ in range(10):
        RecentLayouts(layouts).learn(with_ids(1, 2, 3))
    assert len(layouts) == 1


def test_reader_reads_known_and_unknown_layouts() -> None:
    reader = EntryReader(Layouts(), 255)
    for number in (1, 1, 2, 1, 2):
        packet = with_ids(number)
        read = reader.read(IMEI, encoded(packet), 0.0, lambda: None)
        assert read == Reading(entries_without_layouts(packet), None)
    assert isinstance(reader.read(IMEI, b"\x8e", 0.0, lambda: None), Rejected)
