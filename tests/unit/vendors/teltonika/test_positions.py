"""Stream entries of records, byte for byte."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given

from tests.unit.vendors.teltonika.golden import (
    BEACON_DATA,
    BELOW_THE_SEA,
    DRIVING,
    EXTENDED,
    FIVE_ELEMENTS,
    GOLDEN,
    IMEI,
    NARROW_ELEMENTS,
    NEWEST_FIRST,
    PANIC,
    SMALLEST,
    SOUTH_WEST,
    TWO_RECORDS,
    Golden,
)
from tests.unit.vendors.teltonika.strategies import packets
from tracker.extra import read_extra
from tracker.outcomes import Decoded
from tracker.position import Entry, Position
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Packet, Record, decode_packet
from tracker.vendors.teltonika.content import Content
from tracker.vendors.teltonika.positions import RAW_TIMESTAMP, position
from tracker.vendors.teltonika.positions import entries as entries_at

#: Golden frame → the payload of each record, written by hand from the specification.
PAYLOADS = {
    FIVE_ELEMENTS: [
        '{"device_id":"356307042441013","timestamp":"2019-06-10T10:04:46.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":1,"event":1,"attributes":{"21":3,"1":1,"66":24079,"241":24602,"78":0}}',
    ],
    NARROW_ELEMENTS: [
        '{"device_id":"356307042441013","timestamp":"2019-06-10T10:05:36.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":1,"event":1,"attributes":{"21":3,"1":1,"66":24080}}',
    ],
    TWO_RECORDS: [
        '{"device_id":"356307042441013","timestamp":"2019-06-10T10:01:01.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":1,"event":1,"attributes":{"1":0}}',
        '{"device_id":"356307042441013","timestamp":"2019-06-10T10:01:19.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":1,"event":1,"attributes":{"1":1}}',
    ],
    DRIVING: [
        '{"device_id":"356307042441013","timestamp":"2019-01-04T12:27:19.000Z",'
        '"latitude":48.1523066,"longitude":16.3745183,"altitude":190,"angle":198,"speed":83,'
        '"satellites":15,"priority":0,"event":0,"attributes":{"240":1,"21":3,"200":0,"1":1,'
        '"29":0,"252":0,"66":14233,"24":83,"205":63501,"206":17007,"67":3976,"25":3000,'
        '"86":3000,"241":23201,"16":2656224}}',
    ],
    BELOW_THE_SEA: [
        '{"device_id":"356307042441013","timestamp":"2015-09-02T12:21:40.000Z",'
        '"latitude":25.6808615,"longitude":55.7956015,"altitude":-6,"angle":0,"speed":0,'
        '"satellites":18,"priority":0,"event":0,"attributes":{"1":0,"71":3,"66":26268,'
        '"146":0,"199":0,"145":0}}',
    ],
    NEWEST_FIRST: [
        '{"device_id":"356307042441013","timestamp":"2022-08-12T20:54:20.000Z",'
        '"latitude":55.9511166,"longitude":23.291255,"altitude":0,"angle":0,"speed":0,'
        '"satellites":0,"priority":0,"event":0,"attributes":{"69":4,"240":0,"80":4,"21":0,'
        '"200":1,"239":0,"79":99,"66":12800,"67":3,"68":0,"241":24601}}',
        '{"device_id":"356307042441013","timestamp":"2022-08-12T10:54:18.000Z",'
        '"latitude":55.9511166,"longitude":23.291255,"altitude":110,"angle":324,"speed":0,'
        '"satellites":7,"priority":0,"event":239,"attributes":{"69":3,"240":0,"80":5,"21":5,'
        '"200":0,"239":0,"79":2,"181":14,"182":11,"66":13092,"24":0,"206":220,"67":17,'
        '"68":0,"199":7,"241":24601,"205":247671,"99":15355438}}',
        '{"device_id":"356307042441013","timestamp":"2022-08-12T10:53:23.000Z",'
        '"latitude":55.9510533,"longitude":23.2913183,"altitude":111,"angle":246,"speed":8,'
        '"satellites":19,"priority":0,"event":0,"attributes":{"69":3,"240":1,"80":5,"21":4,'
        '"200":0,"239":1,"79":2,"181":9,"182":5,"66":14017,"24":8,"206":220,"67":63,'
        '"68":0,"199":3,"241":24601,"205":247671,"99":15355431}}',
    ],
    SOUTH_WEST: [
        '{"device_id":"356307042441013","timestamp":"2024-03-15T12:00:00.000Z",'
        '"latitude":-34.6037,"longitude":-58.3816,"altitude":25,"angle":270,"speed":64,'
        '"satellites":11,"priority":0,"event":0,"attributes":{"239":1,"240":1,"66":12800}}',
        '{"device_id":"356307042441013","timestamp":"2024-03-15T12:05:00.000Z",'
        '"latitude":-34.6037,"longitude":-58.3816,"altitude":25,"angle":0,"speed":0,'
        '"satellites":0,"priority":0,"event":239,"attributes":{"239":0,"240":0,"66":12610}}',
    ],
    SMALLEST: [
        '{"device_id":"356307042441013","timestamp":"2024-03-15T12:10:00.000Z",'
        '"latitude":-34.6037,"longitude":-58.3816,"altitude":25,"angle":0,"speed":0,'
        '"satellites":0,"priority":0,"event":0,"attributes":{}}',
    ],
    EXTENDED: [
        '{"device_id":"356307042441013","timestamp":"2019-06-10T11:36:32.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":1,"event":1,"attributes":{"1":1,"17":29,"16":22949000,"11":893700218,'
        '"14":500686954}}',
    ],
    BEACON_DATA: [
        '{"device_id":"356307042441013","timestamp":"2020-07-16T11:29:46.000Z",'
        '"latitude":54.667425,"longitude":25.2560283,"altitude":172,"angle":248,"speed":0,'
        '"satellites":11,"priority":0,"event":0,"attributes":{"240":1,"21":4,"200":0,"69":1,'
        '"113":86,"181":5,"182":4,"24":0,"67":4064,"68":283,"241":24603}}',
        '{"device_id":"356307042441013","timestamp":"2020-07-16T11:29:48.001Z",'
        '"latitude":54.667425,"longitude":25.2560283,"altitude":172,"angle":248,"speed":0,'
        '"satellites":11,"priority":0,"event":385,"attributes":{"385":{"__buffer_b64":'
        '"ESExAgMEBQYHCAkKCwwNDg8QRUUBCrwhIQIDBAUGBwgJCgsMDQ4PEAILAQqt"}}}',
    ],
    PANIC: [
        '{"device_id":"356307042441013","timestamp":"2024-06-01T08:30:15.250Z",'
        '"latitude":54.687155,"longitude":25.279651,"altitude":112,"angle":45,"speed":87,'
        '"satellites":14,"priority":2,"event":236,"attributes":{"236":1,"239":1,"240":1,'
        '"32":246,"17":65436,"18":50,"19":1000,"25":64349,"66":13920,"16":22949000,'
        '"72":4294967196,"78":{"__bigint":"72069690697717651"},'
        '"331":{"__buffer_b64":""},"264":{"__buffer_b64":"QUJDMTIz"}}}',
    ],
}

#: Golden frame → the field ``extra`` of each record, written by hand from the frame.
EXTRAS = {
    FIVE_ELEMENTS: ['{"widths":{"1":[21,1],"2":[66],"4":[241],"8":[78]},"fix":false}'],
    NARROW_ELEMENTS: ['{"widths":{"1":[21,1],"2":[66]},"fix":false}'],
    TWO_RECORDS: ['{"widths":{"1":[1]},"fix":false}'] * 2,
    DRIVING: [
        '{"widths":{"1":[240,21,200,1,29,252],"2":[66,24,205,206,67,25,86],"4":[241,16]}}',
    ],
    BELOW_THE_SEA: ['{"widths":{"1":[1,71],"2":[66,146],"4":[199,145]}}'],
    NEWEST_FIRST: [
        '{"widths":{"1":[69,240,80,21,200,239,79],"2":[66,67,68],"4":[241]},"fix":false}',
        *(
            [
                '{"widths":{"1":[69,240,80,21,200,239,79],"2":[181,182,66,24,206,67,68],'
                '"4":[199,241,205,99]}}'
            ]
            * 2
        ),
    ],
    SOUTH_WEST: [
        '{"widths":{"1":[239,240],"2":[66]}}',
        '{"widths":{"1":[239,240],"2":[66]},"fix":false}',
    ],
    SMALLEST: ['{"widths":{},"fix":false}'],
    EXTENDED: ['{"widths":{"1":[1],"2":[17],"4":[16],"8":[11,14]},"fix":false}'],
    BEACON_DATA: [
        '{"widths":{"1":[240,21,200,69,113],"2":[181,182,24,67,68],"4":[241]}}',
        '{"widths":{}}',
    ],
    PANIC: [
        '{"widths":{"1":[236,239,240,32],"2":[17,18,19,25,66],"4":[16,72],"8":[78]}}',
    ],
}

RECORD = Record(1_710_504_600_000, 0, -583_816_000, -346_037_000, 25, 270, 11, 64, 0)

#: 9999-12-31T23:59:59.999Z.
LAST_MILLISECOND = 253_402_300_799_999

each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)


def entries(device_id: str, content: Content) -> list[Entry]:
    """Return the entries of content that was received at any time."""
    return entries_at(device_id, content, 0.0, lambda: None)


@each_golden
def test_entries_of_a_golden_frame_have_the_expected_payloads(golden: Golden) -> None:
    packet = decode_packet(golden.data)
    assert isinstance(packet, Decoded)
    given_entries = entries(IMEI, packet.value)
    assert [entry.payload for entry in given_entries] == PAYLOADS[golden]
    assert [entry.extra for entry in given_entries] == EXTRAS[golden]
    for entry, payload in zip(given_entries, PAYLOADS[golden], strict=True):
        assert entry.device_id == IMEI
        assert entry.ts == json.loads(payload)["timestamp"]
        assert entry.codec == ("8" if golden.codec is CODEC_8 else "8E")


@each_golden
def test_conversion_of_a_frame_is_deterministic(golden: Golden) -> None:
    packet = Packet(golden.codec, golden.records)
    assert entries(IMEI, packet) == entries(IMEI, packet)


def test_packet_without_records_has_no_entries() -> None:
    assert entries(IMEI, Packet(CODEC_8, ())) == []


def test_entry_has_the_id_of_the_device_that_logged_in() -> None:
    (entry,) = entries("350000000000006", Packet(CODEC_8E, (RECORD,)))
    assert entry.device_id == "350000000000006"
    assert json.loads(entry.payload)["device_id"] == "350000000000006"


@pytest.mark.parametrize(
    ("wire", "degrees"),
    [
        (0, "0.0"),
        (1, "1e-07"),
        (-1, "-1e-07"),
        (-583_816_000, "-58.3816"),
        (1_800_000_000, "180.0"),
        (-1_800_000_000, "-180.0"),
        (1_799_999_999, "179.9999999"),
        (2**31 - 1, "214.7483647"),
        (-(2**31), "-214.7483648"),
    ],
)
def test_coordinates_are_signed_and_keep_seven_decimals(wire: int, degrees: str) -> None:
    found = position(IMEI, attrs.evolve(RECORD, longitude=wire, latitude=wire))
    assert f'"latitude":{degrees},"longitude":{degrees},' in found.to_payload()


@pytest.mark.parametrize("altitude", [-(2**15), -6, 0, 2**15 - 1])
def test_altitude_of_a_record_is_signed(altitude: int) -> None:
    assert position(IMEI, attrs.evolve(RECORD, altitude=altitude)).altitude == altitude


@pytest.mark.parametrize(
    ("width", "value", "text"),
    [
        (1, 0xF6, "246"),
        (2, 0xFF9C, "65436"),
        (4, 0xFFFFFFFF, "4294967295"),
        (8, 2**53 - 1, "9007199254740991"),
        (8, 2**53, '{"__bigint":"9007199254740992"}'),
        (8, 2**64 - 1, '{"__bigint":"18446744073709551615"}'),
    ],
)
def test_values_of_elements_are_unsigned_and_exact(width: int, value: int, text: str) -> None:
    found = position(IMEI, attrs.evolve(RECORD, elements=((78, width, value),)))
    assert found.to_payload().endswith(f'"attributes":{{"78":{text}}}}}')


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), (b"\x00", "AA=="), (b"\xff\xfe\xfd", "//79"), (b"ABC123", "QUJDMTIz")],
)
def test_values_of_variable_elements_are_stored_in_base64(content: bytes, text: str) -> None:
    found = position(IMEI, attrs.evolve(RECORD, variable=((264, content),)))
    assert found.to_payload().endswith(f'"attributes":{{"264":{{"__buffer_b64":"{text}"}}}}}}')


@pytest.mark.parametrize(
    ("elements", "variable", "attributes", "widths"),
    [
        (((66, 2, 1), (66, 2, 2)), (), {"66": 2}, {"2": [66]}),
        (((66, 1, 9), (66, 8, 1)), (), {"66": 1}, {"8": [66]}),
        (((67, 1, 5), (66, 1, 9), (66, 8, 1)), (), {"67": 5, "66": 1}, {"1": [67], "8": [66]}),
        (((66, 2, 1), (67, 2, 5), (66, 2, 2)), (), {"66": 2, "67": 5}, {"2": [66, 67]}),
        (((66, 2, 1),), ((66, b"A"),), {"66": {"__buffer_b64": "QQ=="}}, {}),
        ((), ((66, b"A"), (66, b"")), {"66": {"__buffer_b64": ""}}, {}),
    ],
)
def test_last_element_of_a_repeated_id_is_kept(
    elements: tuple[tuple[int, int, int], ...],
    variable: tuple[tuple[int, bytes], ...],
    attributes: dict[str, object],
    widths: dict[str, list[int]],
) -> None:
    record = attrs.evolve(RECORD, elements=elements, variable=variable)
    (entry,) = entries(IMEI, Packet(CODEC_8E, (record,)))
    assert json.loads(entry.payload)["attributes"] == attributes
    assert json.loads(entry.extra) == {"widths": widths}


@pytest.mark.parametrize(
    ("wire", "timestamp"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_717_230_615_250, "2024-06-01T08:30:15.250Z"),
        (LAST_MILLISECOND, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_time_up_to_the_year_9999_adds_no_attribute(wire: int, timestamp: str) -> None:
    found = position(IMEI, attrs.evolve(RECORD, timestamp=wire))
    assert found.timestamp == timestamp
    assert found.attributes == {}


@pytest.mark.parametrize(
    ("wire", "kept"),
    [
        (LAST_MILLISECOND + 1, 253_402_300_800_000),
        (2**53 - 1, 9_007_199_254_740_991),
        (2**53, {"__bigint": "9007199254740992"}),
        (2**64 - 1, {"__bigint": "18446744073709551615"}),
    ],
)
def test_time_after_the_year_9999_is_kept_as_an_attribute(wire: int, kept: object) -> None:
    record = attrs.evolve(RECORD, timestamp=wire, elements=((66, 2, 12_800),))
    (entry,) = entries(IMEI, Packet(CODEC_8, (record,)))
    document = json.loads(entry.payload)
    assert entry.ts == document["timestamp"] == "9999-12-31T23:59:59.999Z"
    assert document["attributes"] == {"66": 12_800, "timestamp_ms": kept}
    assert RAW_TIMESTAMP == "timestamp_ms"


def test_records_after_the_year_9999_have_different_payloads() -> None:
    late = [attrs.evolve(RECORD, timestamp=LAST_MILLISECOND + more) for more in (1, 2)]
    first, second = entries(IMEI, Packet(CODEC_8, tuple(late)))
    assert first.ts == second.ts
    assert first.payload != second.payload


@given(packets())
def test_entry_of_any_record_can_be_parsed(packet: Packet) -> None:
    made = entries(IMEI, packet)
    assert len(made) == len(packet.records)
    for record, entry in zip(packet.records, made, strict=True):
        assert entry.codec == packet.codec.name
        read = Position.from_payload(entry.payload)
        assert read == position(IMEI, record)
        assert read.latitude is not None
        assert read.longitude is not None
        assert (round(read.latitude * 1e7), round(read.longitude * 1e7)) == (
            record.latitude,
            record.longitude,
        )
        ids = {element[0] for element in (*record.elements, *record.variable)}
        assert set(read.attributes) - {RAW_TIMESTAMP} == {str(number) for number in ids}
        extra = read_extra(entry.extra)
        widths = {element_id: width for element_id, width, _ in record.elements}
        variable = {element_id for element_id, _ in record.variable}
        assert extra.widths == {key: widths[key] for key in widths if key not in variable}
        assert extra.fix is (None if read.has_fix() else False)
