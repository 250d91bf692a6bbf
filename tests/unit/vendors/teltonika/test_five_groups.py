"""Codec 8 with a fifth group of elements in each record, from its bytes to entries and ACKs."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.conversation import LOGIN, Conversation
from tests.unit.vendors.teltonika.golden import GOLDEN, IMEI, SMALLEST, Golden
from tests.unit.vendors.teltonika.golden_five_groups import (
    GOLDEN_FIVE_GROUPS,
    NO_ELEMENTS,
    WIDE,
    WIDE_ELEMENTS,
)
from tests.unit.vendors.teltonika.strategies import five_group_packets, records
from tests.unit.vendors.teltonika.test_datagram_protocol import Port, datagram
from tracker.outcomes import Decoded, Rejected
from tracker.position import MAX_TIMESTAMP_MS
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8_FIVE_GROUPS,
    CODEC_8E,
    Packet,
    Record,
    decode_packet,
    encode_packet,
)
from tracker.vendors.teltonika.layouts import Layouts, RecentLayouts
from tracker.vendors.teltonika.positions import entries
from tracker.vendors.teltonika.reader import EntryReader

each_golden = pytest.mark.parametrize("golden", GOLDEN_FIVE_GROUPS, ids=lambda golden: golden.name)
golden_8 = [golden for golden in GOLDEN if golden.codec is CODEC_8]


def with_second_count(data: bytes, stray: bytes, count: bytes) -> bytes:
    """Return the data of a packet with stray bytes before its second count."""
    return data[:-1] + stray + count


# Packets.


@each_golden
def test_golden_packet_of_five_groups_is_decoded(golden: Golden) -> None:
    expected = Decoded(Packet(CODEC_8_FIVE_GROUPS, golden.records), len(golden.data))
    assert decode_packet(golden.data) == expected


@each_golden
def test_golden_records_of_five_groups_are_encoded_byte_for_byte(golden: Golden) -> None:
    assert encode_packet(CODEC_8_FIVE_GROUPS, golden.records) == golden.data


@each_golden
def test_packet_of_five_groups_truncated_anywhere_is_rejected(golden: Golden) -> None:
    for size in range(3, len(golden.data)):
        for data in (golden.data[:size], with_second_count(golden.data[:size], b"", b"\x0b")):
            assert isinstance(decode_packet(data), Rejected)
            assert isinstance(decode_packet(data[:-1] + golden.data[-1:]), Rejected)


@each_golden
@pytest.mark.parametrize("stray", [b"\x00", b"\xff", b"\x00" * 16, b"\x00" * 31])
def test_stray_bytes_after_five_groups_are_rejected(golden: Golden, stray: bytes) -> None:
    data = with_second_count(golden.data, stray, golden.data[-1:])
    assert isinstance(decode_packet(data), Rejected)


@each_golden
def test_wrong_total_of_five_groups_is_rejected(golden: Golden) -> None:
    total = 2 + 24 + 1
    for wrong in {0, 1, 3, 5, 255} - {golden.data[total]}:
        data = golden.data[:total] + bytes((wrong,)) + golden.data[total + 1 :]
        assert isinstance(decode_packet(data), Rejected)


@each_golden
def test_fifth_group_of_another_codec_is_rejected(golden: Golden) -> None:
    for codec_id in (0x10, 0x8E):
        assert isinstance(decode_packet(bytes((codec_id,)) + golden.data[1:]), Rejected)
    extended = Record(*attrs.astuple(golden.records[0], recurse=False)[:9])
    data = encode_packet(CODEC_8E, [extended])
    for stray in (bytes(2), b"\x00\x01\x00\xcb" + WIDE):
        assert isinstance(decode_packet(with_second_count(data, stray, b"\x01")), Rejected)


@pytest.mark.parametrize("golden", golden_8, ids=lambda golden: golden.name)
def test_packet_that_can_be_read_with_four_groups_has_four(golden: Golden) -> None:
    outcome = decode_packet(golden.data)
    assert isinstance(outcome, Decoded)
    assert outcome.value.codec is CODEC_8


@pytest.mark.parametrize("golden", golden_8, ids=lambda golden: golden.name)
def test_stray_zeros_after_several_records_are_not_fifth_groups(golden: Golden) -> None:
    for size in range(2, 31):
        data = with_second_count(golden.data, bytes(size), golden.data[-1:])
        assert isinstance(decode_packet(data), Rejected)


@pytest.mark.parametrize("records_before", [0, 1])
def test_wrong_clock_does_not_hide_the_fifth_group(records_before: int) -> None:
    late = attrs.evolve(WIDE_ELEMENTS.records[0], timestamp=2**63)
    packet = Packet(CODEC_8_FIVE_GROUPS, (late,) * (records_before + 1))
    data = encode_packet(packet.codec, packet.records)
    assert decode_packet(data) == Decoded(packet, len(data))


def test_empty_fifth_group_of_the_only_record_is_read() -> None:
    outcome = decode_packet(with_second_count(SMALLEST.data, b"\x00", b"\x01"))
    expected = Packet(CODEC_8_FIVE_GROUPS, SMALLEST.records)
    assert outcome == Decoded(expected, len(SMALLEST.data) + 1)


@given(five_group_packets)
def test_reading_of_a_packet_of_five_groups_gives_the_same_bytes(packet: Packet) -> None:
    data = encode_packet(packet.codec, packet.records)
    outcome = decode_packet(data)
    if isinstance(outcome, Rejected):
        # It may be one of four groups with stray bytes.
        assert outcome.field == "records"
        assert any(record.timestamp > MAX_TIMESTAMP_MS for record in packet.records[1:])
        return
    read = outcome.value
    # Without records, and by rare chance, the packet is one of four groups, too.
    assert read == packet or read.codec is CODEC_8
    assert encode_packet(read.codec, read.records) == data


@given(st.lists(records(CODEC_8), max_size=5))
def test_packet_of_four_groups_is_never_read_with_five(drawn: list[Record]) -> None:
    packet = Packet(CODEC_8, tuple(drawn))
    data = encode_packet(CODEC_8, drawn)
    assert decode_packet(data) == Decoded(packet, len(data))


@given(five_group_packets, st.data())
def test_damaged_packet_is_only_read_if_all_its_counts_agree(
    packet: Packet, data: st.DataObject
) -> None:
    damaged = bytearray(encode_packet(packet.codec, packet.records))
    offset = data.draw(st.integers(1, len(damaged) - 1))
    damaged[offset] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(3, len(damaged))) :]
    outcome = decode_packet(bytes(damaged))
    if isinstance(outcome, Decoded):
        assert encode_packet(outcome.value.codec, outcome.value.records) == damaged


@pytest.mark.parametrize(
    ("element", "error"),
    [
        ((203, 16, WIDE[:-1]), "element 203: 15 bytes are not a value of 16"),
        ((203, 16, WIDE + b"\x00"), "element 203: 17 bytes are not a value of 16"),
        ((203, 16, 1), "codec 8 cannot encode the record"),
        ((203, 8, WIDE[:8]), "codec 8 cannot encode the record"),
        ((203, 3, 1), "element width 3 is not valid: widths in bytes are 1, 2, 4, 8 and 16"),
    ],
)
def test_value_that_does_not_fit_its_group_cannot_be_encoded(
    element: tuple[int, int, int | bytes], error: str
) -> None:
    record = attrs.evolve(SMALLEST.records[0], elements=(element,))
    with pytest.raises(ValueError, match=error):
        encode_packet(CODEC_8_FIVE_GROUPS, [record])


# Entries.


def test_values_of_16_bytes_become_attributes_with_their_width() -> None:
    first, second = entries(
        IMEI, Packet(CODEC_8_FIVE_GROUPS, WIDE_ELEMENTS.records), 0.0, lambda: None
    )
    assert first.codec == second.codec == "8"
    assert first.payload == (
        '{"device_id":"356307042441013","timestamp":"2024-03-15T12:10:00.000Z",'
        '"latitude":-34.6037,"longitude":-58.3816,"altitude":25,"angle":270,"speed":64,'
        '"satellites":11,"priority":1,"event":203,"attributes":{"239":1,"240":1,'
        '"203":{"__buffer_b64":"ABEiM0RVZneImaq7zN3u/w=="},'
        '"204":{"__buffer_b64":"AAAAAAAAAAAAAAAAAAAAAA=="}}}'
    )
    assert first.extra == '{"widths":{"1":[239,240],"16":[203,204]}}'
    assert second.payload.endswith('"event":0,"attributes":{}}')
    assert second.extra == '{"widths":{}}'


def test_packet_of_five_groups_is_read_the_same_after_others() -> None:
    reader = EntryReader(Layouts(), 255)
    expected = entries(IMEI, Packet(CODEC_8_FIVE_GROUPS, NO_ELEMENTS.records), 0.0, lambda: None)
    for data in (NO_ELEMENTS.data, SMALLEST.data, NO_ELEMENTS.data):
        reading = reader.read(IMEI, data, 0.0, lambda: None)
    assert not isinstance(reading, Rejected)
    assert reading.entries == expected


def test_packet_of_five_groups_is_not_compiled() -> None:
    layouts = Layouts()
    RecentLayouts(layouts).learn(Packet(CODEC_8_FIVE_GROUPS, WIDE_ELEMENTS.records))
    assert len(layouts) == 0


# Connections and datagrams.


@each_golden
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_device_with_five_groups_gets_the_number_of_its_records(golden: Golden, size: int) -> None:
    talk = Conversation()
    talk.gateway.confirms_immediately = True
    stream = LOGIN + golden.frame + b"\xff" + golden.frame
    for start in range(0, len(stream), size):
        talk.send(stream[start : start + size])
    ack = len(golden.records).to_bytes(4, "big")
    assert talk.received() == b"\x01" + ack + ack
    assert [len(published) for published, _ in talk.gateway.published] == [
        len(golden.records),
        len(golden.records),
    ]
    assert not talk.closed


@each_golden
def test_datagram_with_five_groups_gets_the_number_of_its_records(golden: Golden) -> None:
    port = Port()
    port.gateway.confirms_immediately = True
    port.receive(datagram(golden.data))
    count = len(golden.records)
    ((ack, _),) = port.acks()
    assert ack == bytes.fromhex("0005cafe0105") + bytes((count,))
    assert [len(published) for published, _ in port.gateway.published] == [count]
