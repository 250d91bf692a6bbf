"""The boundaries and heads of frames in the HEX encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.queclink.golden_hex import (
    ACK_GV300CAN,
    FRI_GB100,
    FRI_GV300CAN,
    HBD_GV300CAN,
    HEX_GOLDEN,
    HEX_IDS,
    INF_NAMED,
    HexGolden,
)
from tests.unit.vendors.queclink.hexencoding import (
    encode_hex_answer,
    encode_hex_fri,
    encode_hex_heartbeat,
    seal,
)
from tests.unit.vendors.queclink.test_framing import frames_of
from tracker.outcomes import Decoded, Incomplete, Rejected
from tracker.vendors.queclink.encoding import Place, Sender
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.hexframes import HexFrame
from tracker.vendors.queclink.hexrecords import hex_records
from tracker.vendors.queclink.text import ASCII

LIMIT = 8192
ASCII_FRAME = b"+RESP:GTCSQ,1A0102,135790246811220,,21,0,20100310172830,0100$"
SENDER = Sender("865084030003675", 0x11F0, 1_710_504_600, version="450102")


def decoded(data: bytes) -> HexFrame:
    outcome = decode_frame(data, LIMIT)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(data)
    assert isinstance(outcome.value, HexFrame)
    return outcome.value


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_head_of_a_hex_frame_has_the_values_of_the_frame(golden: HexGolden) -> None:
    frame = decoded(golden.data)
    assert (frame.report, frame.device_id, frame.ack) == golden[1:4]
    assert frame.is_heartbeat is (golden.entry is None)


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_truncated_hex_frame_is_incomplete_at_each_offset(golden: HexGolden) -> None:
    for size in range(1, len(golden.data)):
        outcome = decode_frame(golden.data[:size], LIMIT)
        assert isinstance(outcome, Incomplete)
        assert 0 < outcome.missing <= len(golden.data) - size


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_frames_of_both_encodings_may_follow_each_other(size: int) -> None:
    stream = b"".join(golden.data + ASCII_FRAME for golden in HEX_GOLDEN)
    frames, rejected, rest = frames_of(stream, size)
    assert not rejected
    assert not rest
    hexes = [frame.report for frame in frames if isinstance(frame, HexFrame)]
    assert hexes == [golden.report for golden in HEX_GOLDEN]
    assert len(frames) == 2 * len(HEX_GOLDEN)


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_hex_frame_with_one_wrong_byte_is_never_decoded(golden: HexGolden) -> None:
    for offset in range(4, len(golden.data)):
        damaged = bytearray(golden.data)
        damaged[offset] ^= 0x55
        outcome = decode_frame(damaged, LIMIT)
        assert not isinstance(outcome, Decoded)


def test_frame_after_a_wrong_crc_is_decoded() -> None:
    damaged = bytearray(FRI_GB100.data)
    damaged[30] ^= 1
    frames, rejected, rest = frames_of(bytes(damaged) + FRI_GV300CAN.data, 64)
    assert [one.field for one in rejected] == ["crc"]
    assert frames == [decoded(FRI_GV300CAN.data)]
    assert not rest


def test_frame_after_a_wrong_length_is_decoded() -> None:
    damaged = bytearray(FRI_GB100.data)
    damaged[10] -= 3
    frames, rejected, _ = frames_of(bytes(damaged) + FRI_GV300CAN.data, 1000)
    assert rejected[0].field == "length"
    assert frames == [decoded(FRI_GV300CAN.data)]


def test_length_of_an_information_frame_may_follow_a_second_mask() -> None:
    content = INF_NAMED.data[4:-4]
    longer = content[:3] + b"\0\1" + (len(INF_NAMED.data) + 2).to_bytes(2) + content[5:]
    frame = decoded(seal(b"+INF", longer))
    assert (frame.report, frame.name, frame.second_mask) == ("GTINF", "gb100", b"\0\1")


def test_frame_without_a_length_is_rejected_with_the_bit_to_set() -> None:
    content = bytearray(FRI_GB100.data[4:-4])
    content[4] &= 0x7F
    outcome = decode_frame(seal(b"+RSP", bytes(content)), LIMIT)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "+RSP without a length: set bit 7 of its mask"


def test_frame_longer_than_the_limit_is_rejected_at_its_length() -> None:
    outcome = decode_frame(FRI_GB100.data[:20], len(FRI_GB100.data) - 1)
    assert isinstance(outcome, Rejected)
    assert outcome.field == "length"


def test_frame_with_an_impossible_imei_is_rejected() -> None:
    content = bytearray(FRI_GB100.data[4:-4])
    content[12] = 100
    outcome = decode_frame(seal(b"+RSP", bytes(content)), LIMIT)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "+RSP without an IMEI"


def test_frame_too_short_for_its_mask_is_rejected() -> None:
    outcome = decode_frame(seal(b"+HBD", b"\xff\x0c\0\0"), LIMIT)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "+HBD is too short for the fields of its mask"


def test_heartbeat_may_omit_its_unique_id() -> None:
    content = bytearray(HBD_GV300CAN.data[4:-4])
    content[0] &= 0x7F
    del content[7:15]
    content[1] -= 8
    frame = decoded(seal(b"+HBD", bytes(content)))
    assert (frame.device_id, frame.ack) == ("", b"+SACK:GTHBD,,0455$")


def test_answer_to_a_command_has_the_form_of_the_ascii_encoding() -> None:
    answer = decoded(ACK_GV300CAN.data).answer
    assert answer is not None
    assert (answer.codec, answer.token) == (ASCII, "0028")
    assert answer.text == "+ACK:GTQSS,4B0305,867995030082104,,0028,20190424020924,BBCA$"


@given(st.integers(1, 15), st.booleans())
def test_encoded_report_is_decoded_with_all_its_positions(number: int, buffered: bool) -> None:
    places = [Place(1_710_504_600 + one, -0.5, 51.5, speed=63.7) for one in range(number)]
    frame = decoded(encode_hex_fri(SENDER, places, buffered=buffered))
    entries = hex_records(
        frame, frame.device_id, 0.0, 0, max_records=255, message_bytes=8192
    ).entries
    assert frame.device_id == SENDER.device_id
    assert [entry.ts for entry in entries] == sorted({entry.ts for entry in entries})
    assert len(entries) == number


def test_encoded_heartbeat_and_answer_are_decoded() -> None:
    assert decoded(encode_hex_heartbeat(SENDER)).ack == b"+SACK:GTHBD,,11F0$"
    answer = decoded(encode_hex_answer(SENDER, 16, "00AB"))
    assert (answer.report, answer.serial) == ("GTRTO", "00AB")
