"""The boundaries of frames, and their heads and tails."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.unit.vendors.queclink.golden import FRI_GV300, GOLDEN, HEARTBEAT, IDS, Golden
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.queclink.framing import Blank, Frame, decode_frame
from tracker.vendors.queclink.text import TextFrame

LIMIT = 8192


def decoded(data: bytes) -> TextFrame:
    outcome = decode_frame(data, LIMIT)
    assert isinstance(outcome, Decoded)
    assert isinstance(outcome.value, TextFrame)
    return outcome.value


def frames_of(data: bytes, size: int) -> tuple[list[Frame], list[Rejected], bytes]:
    """Return the frames of a stream that arrives in pieces, its rejected parts and the rest."""
    buffer = bytearray()
    frames: list[Frame] = []
    rejected: list[Rejected] = []
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        while buffer:
            outcome = decode_frame(buffer, LIMIT)
            assert not isinstance(outcome, Fatal)
            if isinstance(outcome, Incomplete):
                break
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
            elif not isinstance(outcome.value, Blank):
                frames.append(outcome.value)
            del buffer[: outcome.used]
    return frames, rejected, bytes(buffer)


@pytest.mark.parametrize("golden", GOLDEN, ids=IDS)
def test_frame_ends_at_its_terminator(golden: Golden) -> None:
    outcome = decode_frame(golden.data + b"+RESP", LIMIT)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(golden.data)
    frame = outcome.value
    assert isinstance(frame, TextFrame)
    assert (frame.device_id, frame.count_number) == (golden.device_id, golden.count_number)


@pytest.mark.parametrize("golden", GOLDEN, ids=IDS)
def test_truncated_frame_is_incomplete(golden: Golden) -> None:
    for size in range(1, len(golden.data)):
        assert decode_frame(golden.data[:size], LIMIT) == Incomplete(1)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10_000])
def test_frames_of_a_stream_do_not_depend_on_its_segments(size: int) -> None:
    stream = b"".join(golden.data for golden in GOLDEN)
    frames, rejected, rest = frames_of(stream, size)
    assert frames == [decoded(golden.data) for golden in GOLDEN]
    assert (rejected, rest) == ([], b"")


@pytest.mark.parametrize("end", [b"$", b"\0", b"$\r\n", b"$\0", b"\0\0", b"$ "])
def test_frame_ends_with_dollar_or_nul_and_line_ends_are_skipped(end: bytes) -> None:
    bare = FRI_GV300.data[:-1]
    frames, rejected, rest = frames_of(bare + end + HEARTBEAT.data[:-1] + end, 1)
    assert frames == [decoded(FRI_GV300.data), decoded(HEARTBEAT.data)]
    assert (rejected, rest) == ([], b"")


def test_line_end_after_a_frame_is_no_partial_frame() -> None:
    assert decode_frame(b"\r\n", LIMIT) == Decoded(Blank(2), 2)


@pytest.mark.parametrize(
    "garbage",
    [b"x", b"\x00\xff\xfe$", b"4.3,92,70.0$", b"AT+GTRTO=x,1$", b"+RESP:XX$", b"++", b"+AC+"],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_frame_after_garbage_is_found(garbage: bytes, size: int) -> None:
    frames, rejected, rest = frames_of(garbage + FRI_GV300.data, size)
    assert frames == [decoded(FRI_GV300.data)]
    assert rejected
    assert rest == b""


def test_frame_without_an_end_is_rejected_at_the_next_frame() -> None:
    cut = FRI_GV300.data[:60]
    frames, rejected, _ = frames_of(cut + HEARTBEAT.data, 1000)
    assert frames == [decoded(HEARTBEAT.data)]
    assert [one.used for one in rejected] == [len(cut)]


@pytest.mark.parametrize("start", [b"+RESP:GTFRI,", b"x", b"\x00\xffx"])
def test_garbage_beyond_the_limit_is_fatal(start: bytes) -> None:
    data = start.lstrip(b"\0") + b"a" * LIMIT
    assert isinstance(decode_frame(data, LIMIT), Fatal)
    assert decode_frame(data[: LIMIT - 1], LIMIT) == Incomplete(1)


@pytest.mark.parametrize(
    ("version", "device_id", "expected"),
    [
        ("060100", "135790246811220", "135790246811220"),
        ("8020040200", "866314060249032", "866314060249032"),
        ("", "135790246811220", "135790246811220"),
        ("2d0300", "a1000043d20139", "A1000043D20139"),
    ],
)
def test_device_id_follows_the_version(version: str, device_id: str, expected: str) -> None:
    frame = decoded(f"+RESP:GTPNA,{version},{device_id},,20160101000000,0001$".encode())
    assert (frame.version, frame.device_id) == (version.upper(), expected)


@pytest.mark.parametrize(
    "head",
    [
        *(
            b"060100",
            b"060100,",
            b"060100,1234",
            b"060100,13579024681122X",
            b"0601,135790246811220",
        ),
        *(b"060100,1357902468112200", b"060100,A1000043D2013Z", b""),
    ],
)
def test_frame_without_a_device_id_is_rejected(head: bytes) -> None:
    data = b"+RESP:GTPNA," + head + b",20160101000000,0001$"
    outcome = decode_frame(data + HEARTBEAT.data, LIMIT)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)


def test_vin_stands_before_the_name_in_reports_of_obd_models() -> None:
    empty = decoded(b"+RESP:GTPNA,360100,135790246811220,,NAME,20160101000000,0001$")
    unknown = decoded(
        b"+RESP:GTPNA,EE0100,135790246811220,1G1JC5444R7252367,N,20160101000000,0001$"
    )
    other = decoded(b"+RESP:GTPNA,060100,135790246811220,1G1JC5444R7252367,20160101000000,0001$")
    assert (empty.vin, empty.name) == ("", "NAME")
    assert (unknown.vin, unknown.name) == ("1G1JC5444R7252367", "N")
    assert (other.vin, other.name) == ("", "1G1JC5444R7252367")


def test_malformed_tail_leaves_its_fields_in_the_body() -> None:
    frame = decoded(b"+RESP:GTSTT,060100,135790246811220,,41,2016$")
    assert (frame.send_time, frame.count_number, frame.body) == ("", "", ("41", "2016"))
    assert frame.ack == b""


def test_oldest_devices_send_a_version_after_the_count_number() -> None:
    frame = decoded(b"+RESP:GTINF,359464030073766,8938,18,20131018084015,00EE,0103090402$")
    assert (frame.send_time, frame.count_number) == ("20131018084015", "00EE")


def test_ack_repeats_the_count_number() -> None:
    assert decoded(FRI_GV300.data).ack == b"+SACK:11F0$"
    assert decoded(HEARTBEAT.data).ack == b"+SACK:GTHBD,1A0102,11F0$"


def test_control_characters_and_bytes_that_are_no_text_are_escaped() -> None:
    frame = decoded(b"+RESP:GTPNA,060100,135790246811220,\x01\xff,20160101000000,0001$")
    assert frame.name == "\\x01\\xff"


def test_blank_bytes_are_skipped_without_a_copy_of_what_follows() -> None:
    buffer = bytearray(b"\r\n" + b"x" * 1_000_000)
    tracemalloc.start()
    try:
        outcome = decode_frame(buffer, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome == Decoded(Blank(2), 2)
    assert peak < 100_000


def test_blank_bytes_may_be_all_there_is() -> None:
    assert decode_frame(bytearray(b"\r\n\0 "), LIMIT) == Decoded(Blank(4), 4)
