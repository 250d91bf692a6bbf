"""Stream entries of Codec 16, Codec 7 and messages, byte for byte."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import golden_7
from tests.unit.vendors.teltonika.golden import IMEI
from tests.unit.vendors.teltonika.golden_16 import ON_CHANGE, WIDE_IDS
from tests.unit.vendors.teltonika.golden_messages import (
    ANSWER_14,
    INPUTS_12,
    REFUSAL_14,
    SERIAL_13,
    SERIAL_15,
    TWO_PARTS_12,
    GoldenMessage,
    alone,
)
from tracker.extra import read_extra
from tracker.position import Entry, Position, digest
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, CODEC_16, Packet, Record
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record
from tracker.vendors.teltonika.content import Content
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, Messages
from tracker.vendors.teltonika.positions import codec7_position, entries, message_position

#: 2026-11-22T10:00:00.125Z.
NOW = 1_795_341_600.125

RECORD = Record(1_710_504_600_000, 0, -583_816_000, -346_037_000, 25, 270, 11, 64, 0)
TWICE = ((66, 2, 1), (66, 2, 2))

#: The fields of a payload without coordinates before its attributes.
NO_COORDINATES = (
    '"latitude":null,"longitude":null,"altitude":null,"angle":null,"speed":null,'
    '"satellites":null,"priority":0,"event":0,'
)


def repetitions(content: Content) -> int:
    """Return the number of records with a repeated id that are reported."""
    notices: list[None] = []
    entries(IMEI, content, NOW, lambda: notices.append(None))
    return len(notices)


def entries_of(content: Content, device_id: str = IMEI, now: float = NOW) -> list[Entry]:
    """Return the entries of a frame."""
    return entries(device_id, content, now, lambda: None)


def message(content: bytes, codec_id: int = 0x0C, **rest: object) -> Message:
    return Message(MESSAGE_CODECS[codec_id], 0x06, content, **rest)  # type: ignore[arg-type]


# Codec 16.


def test_entries_of_codec_16_have_the_generation_type_last() -> None:
    first, second = entries_of(Packet(CODEC_16, ON_CHANGE.records))
    assert first == Entry(
        "2019-07-10T12:06:54.000Z",
        IMEI,
        "16",
        '{"device_id":"356307042441013","timestamp":"2019-07-10T12:06:54.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":0,"event":11,"attributes":{"1":0,"3":0,"11":39,"66":22074},'
        '"generation_type":5}',
        '{"widths":{"1":[1,3],"2":[11,66]},"fix":false}',
    )
    assert second.payload == (
        '{"device_id":"356307042441013","timestamp":"2019-07-10T12:06:55.000Z",'
        '"latitude":0.0,"longitude":0.0,"altitude":0,"angle":0,"speed":0,"satellites":0,'
        '"priority":0,"event":11,"attributes":{"1":0,"3":0,"11":38,"66":22074},'
        '"generation_type":5}'
    )


def test_entry_of_a_capture_of_codec_16_has_the_expected_payload() -> None:
    (entry,) = entries_of(Packet(CODEC_16, WIDE_IDS.records))
    assert entry.payload == (
        '{"device_id":"356307042441013","timestamp":"2018-07-26T20:43:43.000Z",'
        '"latitude":-33.4379166,"longitude":-70.64967,"altitude":571,"angle":282,"speed":0,'
        '"satellites":6,"priority":0,"event":0,"attributes":{"256":0,"261":0,"262":0,"269":0,'
        '"270":0,"271":0,"278":0,"279":0,"280":0,"287":0,"257":0,"263":0,"264":0,"265":0,'
        '"266":0,"267":0,"268":0,"272":0,"273":0,"274":0,"275":0,"276":0,"277":0,"281":0,'
        '"282":0,"283":0,"284":0,"285":0,"286":0,"258":0,"259":0,"260":0},'
        '"generation_type":7}'
    )


@pytest.mark.parametrize("generation", [0, 1, 7, 255])
def test_any_generation_type_is_kept(generation: int) -> None:
    (entry,) = entries_of(Packet(CODEC_16, (attrs.evolve(RECORD, generation=generation),)))
    assert entry.payload.endswith(f',"generation_type":{generation}}}')
    assert Position.from_payload(entry.payload).generation_type == generation


@pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E])
def test_entries_of_other_codecs_have_no_generation_type(codec: object) -> None:
    (entry,) = entries_of(Packet(codec, (RECORD,)))  # type: ignore[arg-type]
    assert "generation_type" not in entry.payload
    assert Position.from_payload(entry.payload).generation_type is None


# Codec 7.


def test_entries_of_codec_7_have_the_expected_payloads() -> None:
    made_entries = entries_of(Codec7Packet(golden_7.RECORDS))
    assert [entry.payload for entry in made_entries] == [
        '{"device_id":"356307042441013","timestamp":"2015-11-10T21:35:46.000Z",'
        '"latitude":null,"longitude":null,"altitude":null,"angle":null,"speed":null,'
        '"satellites":null,"priority":1,"event":0,"attributes":{"240":1}}',
        '{"device_id":"356307042441013","timestamp":"2015-11-10T21:51:47.000Z",'
        '"latitude":44.791306,"longitude":18.479759,"altitude":141,"angle":0,"speed":2,'
        '"satellites":9,"priority":1,"event":0,"attributes":{"240":1}}',
        '{"device_id":"356307042441013","timestamp":"2015-11-10T22:06:34.000Z",'
        '"latitude":44.878864,"longitude":18.423002,"altitude":157,"angle":0,"speed":0,'
        '"satellites":10,"priority":1,"event":0,"attributes":{"240":1}}',
        '{"device_id":"356307042441013","timestamp":"2015-11-10T22:09:39.000Z",'
        '"latitude":null,"longitude":null,"altitude":null,"angle":null,"speed":null,'
        '"satellites":null,"priority":1,"event":0,"attributes":{"1":100,"244":0,"221":0,'
        '"240":1,"67":4108,"5":5,"gsm_signal":26,"operator":21803}}',
    ]
    for entry in made_entries:
        assert entry.codec == "7"
        assert entry.device_id == IMEI
        assert entry.ts == json.loads(entry.payload)["timestamp"]
        assert Position.from_payload(entry.payload).to_payload() == entry.payload


def test_cell_of_codec_7_becomes_named_attributes() -> None:
    record = Codec7Record(1_167_609_600_000, 2, cell=(12_345, 65_535), satellites=0)
    assert codec7_position(IMEI, record).to_payload() == (
        '{"device_id":"356307042441013","timestamp":"2007-01-01T00:00:00.000Z",'
        '"latitude":null,"longitude":null,"altitude":null,"angle":null,"speed":null,'
        '"satellites":0,"priority":2,"event":0,"attributes":{"lac":12345,"cell_id":65535}}'
    )


def test_record_of_codec_7_without_coordinates_is_marked() -> None:
    made_entries = entries_of(Codec7Packet(golden_7.RECORDS))
    assert [entry.extra for entry in made_entries] == [
        '{"widths":{"1":[240]},"fix":false}',
        '{"widths":{"1":[240]}}',
        '{"widths":{"1":[240]}}',
        '{"widths":{"1":[1,244,221,240],"2":[67],"4":[5]},"fix":false}',
    ]


@pytest.mark.parametrize(
    ("satellites", "latitude", "mark"),
    [
        (None, 41.5, ',"fix":true'),
        (None, 0.0, ',"fix":false'),
        (0, 41.5, ',"fix":false'),
        (1, 41.5, ""),
        (1, 0.0, ',"fix":false'),
    ],
)
def test_coordinates_of_codec_7_need_no_satellites_if_the_mask_has_none(
    satellites: int | None, latitude: float, mark: str
) -> None:
    record = Codec7Record(
        1_167_609_600_000, 0, latitude=latitude, longitude=0.0, satellites=satellites
    )
    (entry,) = entries_of(Codec7Packet((record,)))
    assert entry.extra == f'{{"widths":{{}}{mark}}}'
    position = Position.from_payload(entry.payload)
    assert position.has_fix(read_extra(entry.extra).fix) is (mark != ',"fix":false')


def test_last_element_of_a_repeated_id_of_codec_7_is_kept() -> None:
    record = Codec7Record(1_167_609_600_000, 0, elements=((66, 1, 9), (67, 1, 2), (66, 4, 1)))
    (entry,) = entries_of(Codec7Packet((record,)))
    assert entry.payload.endswith('"attributes":{"66":1,"67":2}}')
    assert entry.extra == '{"widths":{"1":[67],"4":[66]},"fix":false}'


# Messages.


@pytest.mark.parametrize(
    ("golden", "device_id", "codec", "time", "attributes"),
    [
        (
            INPUTS_12,
            IMEI,
            "12",
            "2026-11-22T10:00:00.125Z",
            '{"message":"DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:16924 DO1:0 DO2:1","message_type":6}',
        ),
        (
            SERIAL_13,
            IMEI,
            "13",
            "2023-04-03T20:45:05.000Z",
            '{"message":"GTSL|6|1|0|12749884|1|\\r\\n","message_type":6}',
        ),
        (
            ANSWER_14,
            "352093081452251",
            "14",
            "2026-11-22T10:00:00.125Z",
            '{"message":"Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 '
            "IMEI:352093081452251 Init:2018-11-22 7:13 Uptime:17234 MAC:60BDD0016261 "
            'SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4","message_type":6}',
        ),
        (
            REFUSAL_14,
            IMEI,
            "14",
            "2026-11-22T10:00:00.125Z",
            '{"message":"","message_type":17,"imei":"352093081452468"}',
        ),
        (
            SERIAL_15,
            IMEI,
            "15",
            "2023-11-08T10:40:36.000Z",
            '{"message":"Hello!\\n","message_type":11,"imei":"123456789123456"}',
        ),
        (
            SERIAL_15,
            "123456789123456",
            "15",
            "2023-11-08T10:40:36.000Z",
            '{"message":"Hello!\\n","message_type":11}',
        ),
    ],
)
def test_entry_of_a_message_has_the_expected_payload(
    golden: GoldenMessage, device_id: str, codec: str, time: str, attributes: str
) -> None:
    (entry,) = entries_of(golden.messages, device_id)
    head = f'{{"device_id":"{device_id}","timestamp":"{time}",'
    expected = f'{head}{NO_COORDINATES}"attributes":{attributes}}}'
    assert entry == Entry(time, device_id, codec, expected)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", '""'),
        (b"getinfo", '"getinfo"'),
        (b"a\tb\r\nc", '"a\\tb\\r\\nc"'),
        (b'"\\"', '"\\"\\\\\\""'),
        ("47° N".encode(), '"47\\u00b0 N"'),
        (b"\x00", '{"__buffer_b64":"AA=="}'),
        (b"GTSL\x00", '{"__buffer_b64":"R1RTTAA="}'),
        (b"\x1b[2J", '{"__buffer_b64":"G1sySg=="}'),
        (b"\xff\xfe\xfd", '{"__buffer_b64":"//79"}'),
        (b"\xed\xa0\x80", '{"__buffer_b64":"7aCA"}'),
        ("\u202e".encode(), '{"__buffer_b64":"4oCu"}'),
        ("\u2028".encode(), '{"__buffer_b64":"4oCo"}'),
    ],
)
def test_message_is_stored_as_text_if_printable_and_as_bytes_otherwise(
    content: bytes, text: str
) -> None:
    payload = message_position(IMEI, message(content), NOW).to_payload()
    assert payload.endswith(f'"attributes":{{"message":{text},"message_type":6}}}}')


@pytest.mark.parametrize(
    ("now", "time"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9999, "1970-01-01T00:00:01.999Z"),
        (NOW, "2026-11-22T10:00:00.125Z"),
    ],
)
def test_position_of_a_message_without_a_time_has_the_time_of_arrival(
    now: float, time: str
) -> None:
    assert [entry.ts for entry in entries_of(alone(message(b"x")), now=now)] == [time]


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (2**32 - 1, "2106-02-07T06:28:15.000Z"),
        (1_563_544_372_001, "2019-07-19T13:52:52.001Z"),
    ],
)
def test_position_of_a_message_with_a_time_has_that_time(timestamp: int, time: str) -> None:
    (entry,) = entries_of(alone(message(b"x", 0x0D, timestamp=timestamp)))
    assert entry.ts == time


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_entry_of_any_message_can_be_parsed(content: bytes, timestamp: int) -> None:
    (entry,) = entries_of(alone(message(content, 0x0D, timestamp=timestamp)))
    read = Position.from_payload(entry.payload)
    assert (read.latitude, read.longitude, read.satellites) == (None, None, None)
    assert not read.has_fix()
    assert read.to_payload() == entry.payload
    assert entry.payload.isascii()


def test_entries_of_a_frame_with_several_messages_have_their_numbers() -> None:
    twice = Messages(MESSAGE_CODECS[0x0C], (message(b"OK"), message(b"OK")))
    first, second = entries_of(twice)
    assert first.payload.endswith(
        '"attributes":{"message":"OK","message_type":6,"message_part":1}}'
    )
    assert second.payload.endswith(
        '"attributes":{"message":"OK","message_type":6,"message_part":2}}'
    )
    assert first.ts == second.ts == "2026-11-22T10:00:00.125Z"
    assert digest(first.payload) != digest(second.payload)


# Repeated ids.


@pytest.mark.parametrize(
    ("elements", "variable"),
    [
        (TWICE, ()),
        (((66, 1, 1), (66, 8, 1)), ()),
        (((66, 2, 1),), ((66, b"A"),)),
        ((), ((66, b"A"), (66, b"A"))),
        ((*TWICE, (66, 4, 3), (67, 4, 1), (67, 8, 1)), ()),
    ],
)
def test_record_with_repeated_ids_is_reported_once(
    elements: tuple[tuple[int, int, int], ...], variable: tuple[tuple[int, bytes], ...]
) -> None:
    record = attrs.evolve(RECORD, elements=elements, variable=variable)
    assert repetitions(Packet(CODEC_8E, (record,))) == 1
    assert repetitions(Packet(CODEC_8E, (record, RECORD, record))) == 2


@pytest.mark.parametrize(
    "content",
    [
        Packet(CODEC_8, (RECORD, attrs.evolve(RECORD, elements=((1, 1, 1), (2, 1, 1))))),
        Packet(CODEC_8, (attrs.evolve(RECORD, timestamp=2**64 - 1, elements=((1, 1, 1),)),)),
        Packet(CODEC_16, WIDE_IDS.records),
        Codec7Packet(golden_7.RECORDS),
        TWO_PARTS_12.messages,
    ],
)
def test_record_without_repeated_ids_is_not_reported(content: Content) -> None:
    assert repetitions(content) == 0
