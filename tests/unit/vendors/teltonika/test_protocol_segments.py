"""Connections with segments of any size: the same events and replies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    is_message,
    message,
    repeating,
)
from tests.unit.vendors.teltonika.golden import STREAM
from tracker.vendors.teltonika.avl import CODEC_16, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.login import encode_login

OTHER = "352093081452251"


def replies(*counts: int) -> bytes:
    return b"".join(count.to_bytes(4, "big") for count in counts)


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_stream_with_pings_is_decoded_in_segments_of_any_size(size: int) -> None:
    talk = Conversation()
    talk.gateway.confirms_immediately = True
    for start in range(0, len(STREAM), size):
        talk.send(STREAM[start : start + size])
    assert talk.received() == b"\x01" + replies(1)
    assert talk.events_of("login") == [("login", IMEI)]
    assert [entry.ts for (entry,), _ in talk.gateway.published] == ["2024-03-15T12:10:00.000Z"]
    assert not talk.closed
    assert talk.unread == 0


FRAMES = st.sampled_from(
    [
        b"\xff",
        LOGIN,
        frame(1),
        frame(2, 3, 4),
        malformed.NO_RECORDS,
        repeating(5),
        message(),
        message(b"\xff" * 40, 0x0F, 1_699_440_036, "123456789123456"),
        encode_frame(
            encode_packet(
                CODEC_16, [attrs.evolve(Record(6, 0, 1, 2, 3, 4, 5, 6, 300), generation=7)]
            )
        ),
    ]
)
#: Ends of a stream; all but the empty one and the incomplete frame close the connection.
ENDS = st.sampled_from([b"", encode_login(OTHER), malformed.BAD_CRC, b"GET /", frame(9)[:-1]])


def result_of(pieces: Sequence[bytes]) -> tuple[list[object], list[object], bytes, bool]:
    """Return events, entries, replies and closed state of a connection with these segments."""
    talk = Conversation()
    talk.gateway.confirms_immediately = True
    for piece in pieces:
        talk.send(piece)
    entries: list[object] = [entries for entries, _ in talk.gateway.published]
    return list(talk.gateway.events), entries, talk.received(), talk.closed


@given(st.lists(FRAMES, max_size=8), ENDS, st.lists(st.integers(0, 2000), max_size=12))
def test_division_into_segments_does_not_change_the_result(
    frames: list[bytes], end: bytes, cuts: list[int]
) -> None:
    whole = b"\xff" + LOGIN + b"".join(frames) + end
    offsets = sorted({cut % len(whole) for cut in cuts} | {0, len(whole)})
    pieces = [whole[start:stop] for start, stop in pairwise(offsets)]
    assert result_of(pieces) == result_of([whole])


@given(st.lists(FRAMES, max_size=4))
def test_each_frame_of_a_segment_gets_its_own_reply(frames: list[bytes]) -> None:
    counts = {
        LOGIN: b"\x01",
        frame(1): replies(1),
        frame(2, 3, 4): replies(3),
        malformed.NO_RECORDS: replies(0),
        repeating(5): replies(1),
    }
    _, _, answered, closed = result_of([LOGIN, *frames])
    expected = b"".join(
        replies(1) if data[8:9] == b"\x10" else counts.get(data, b"") for data in frames
    )
    assert answered == b"\x01" + expected
    assert not closed


@given(st.lists(st.one_of(FRAMES, st.binary(max_size=60)), max_size=8))
def test_random_bytes_after_a_login_do_not_raise_and_get_no_ack(frames: list[bytes]) -> None:
    talk = Conversation()
    talk.send(LOGIN)
    talk.received()
    for data in frames:
        talk.send(data)
    assert set(talk.received()) <= {0x01}  # replies to repeated logins
    published = [entries for entries, _ in talk.gateway.published]
    assert sum(not is_message(entries) for entries in published) <= 1
    talk.lose()
    talk.clock.pump([0] * len(frames))
    assert talk.timers == 0
