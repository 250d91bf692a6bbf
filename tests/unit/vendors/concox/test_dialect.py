"""Conversations of devices with the dialect."""

from __future__ import annotations

import pytest

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.concox.frames import frame_of
from tests.unit.vendors.concox.golden import (
    ALARM_16,
    ANSWER_15,
    GOLDEN,
    HEARTBEAT,
    IMEI,
    LBS_28,
    LOGIN,
    POSITION_12,
    POSITION_22,
    TIME,
    ZONED_LOGIN,
    Golden,
)
from tests.unit.vendors.talk import Talk
from tracker.interfaces import Admission, Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.vendors.concox.commands import Flags
from tracker.vendors.concox.content import read_content
from tracker.vendors.concox.dialect import MAX_GARBAGE_BYTES, MAX_INVALID_FRAMES, ConcoxDialect
from tracker.vendors.concox.frames import Frame, decode_frame, encode_frame
from tracker.vendors.concox.positions import entry
from tracker.vendors.concox.reports import answer_frame
from tracker.vendors.concox.settings import ConcoxSettings
from tracker.vendors.concox.vendor import Concox


def entry_of(golden: Golden, arrival: int = 0) -> Entry:
    """Return the entry of a frame that arrives these milliseconds after the start of the clock."""
    frame = frame_of(golden)
    return entry(IMEI, frame, read_content(frame), arrival / 1000)


@pytest.fixture
def talk() -> Talk:
    return Talk(Concox().buildFactory)


@pytest.fixture
def online(talk: Talk) -> Talk:
    talk.send(LOGIN.data)
    assert talk.received() == bytes.fromhex(LOGIN.answer)
    return talk


def test_login_is_acknowledged(talk: Talk) -> None:
    talk.send(ZONED_LOGIN.data)
    assert talk.received() == bytes.fromhex(ZONED_LOGIN.answer)
    assert talk.events_of("login") == [("login", "752533678900242")]


def test_position_has_no_answer(online: Talk) -> None:
    online.send(POSITION_22.data)
    online.confirm()
    assert len(online.gateway.published) == 1
    assert online.received() == b""


def test_heartbeat_is_answered_after_all_earlier_positions(online: Talk) -> None:
    online.send(POSITION_12.data + POSITION_22.data + HEARTBEAT.data)
    appended = [appended for _, appended in online.gateway.published]
    assert len(appended) == 3
    for one in appended[:-1]:
        one.callback(None)
        assert online.received() == b""
    appended[-1].callback(None)
    online.clock.advance(0)
    assert online.received() == bytes.fromhex(HEARTBEAT.answer)


def test_alarm_is_answered_once_it_is_appended(online: Talk) -> None:
    online.send(ALARM_16.data)
    assert online.received() == b""
    online.confirm()
    assert online.received() == bytes.fromhex(ALARM_16.answer)


def test_time_is_answered_with_the_serial_of_the_request(online: Talk) -> None:
    online.clock.rightNow = 1_451_347_221.0
    online.send(TIME.data)
    assert online.received() == bytes.fromhex("78780B8A0F0C1D0000150006F0860D0A")
    assert online.gateway.published == []


def test_clock_that_is_not_set_gives_no_time(online: Talk) -> None:
    online.send(TIME.data)
    assert online.received() == b""
    assert not online.closed


def test_answer_of_the_device_is_an_entry_and_an_answer(online: Talk) -> None:
    online.send(ANSWER_15.data)
    (event,) = online.events_of("answered")
    assert (event[1].text, event[1].token, event[1].codec) == ("DYD=Success!", "0001a958", "gt06")
    assert len(online.gateway.published) == 1


def test_frame_before_the_login_closes_the_connection(talk: Talk) -> None:
    talk.send(POSITION_12.data)
    assert talk.closed
    assert talk.gateway.kinds == [Rejection.LOGIN]


def test_second_login_of_the_device_is_answered(online: Talk) -> None:
    online.send(LOGIN.data)
    assert online.received() == bytes.fromhex(LOGIN.answer)


def test_second_login_of_another_device_closes_the_connection(online: Talk) -> None:
    online.send(ZONED_LOGIN.data)
    assert online.closed
    assert online.received() == b""


@pytest.mark.parametrize("imei", ["1123456789012345", "01234567890123A5", "0123"])
def test_login_without_an_imei_closes_the_connection(talk: Talk, imei: str) -> None:
    talk.send(encode_frame(Frame(0x01, bytes.fromhex(imei), 1)))
    assert talk.closed
    assert talk.received() == b""


def test_garbage_before_the_login_is_skipped_and_counted(talk: Talk) -> None:
    talk.send(b"\x00\x11" + LOGIN.data)
    assert talk.received() == bytes.fromhex(LOGIN.answer)
    assert talk.gateway.kinds == [Rejection.PREAMBLE]


def test_frame_with_a_wrong_crc_is_skipped_and_counted(online: Talk) -> None:
    damaged = POSITION_22.data[:-3] + b"\x87\r\n"
    online.send(damaged + POSITION_22.data)
    assert online.gateway.kinds == [Rejection.CRC]
    assert len(online.gateway.published) == 1
    assert online.received() == b""


def test_device_id_of_the_entries_is_that_of_the_login(online: Talk) -> None:
    online.send(POSITION_22.data)
    assert online.gateway.published[0][0][0].device_id == IMEI


def test_unknown_number_is_kept_and_acknowledged(online: Talk) -> None:
    frame = Frame(0x5E, b"abc", 7)
    online.send(encode_frame(frame))
    online.confirm()
    assert online.received() == encode_frame(Frame(0x5E, b"", 7))


def test_dialects_share_no_state(online: Talk) -> None:
    other = Talk(Concox().buildFactory, gateway=FakeGateway())
    other.send(POSITION_12.data)
    assert other.closed
    assert not online.closed


def test_garbage_up_to_the_limit_is_skipped(online: Talk) -> None:
    for _ in range(2):
        online.send(bytes(MAX_GARBAGE_BYTES) + POSITION_22.data)
    assert len(online.gateway.published) == 2
    assert not online.closed


@pytest.mark.parametrize("size", [1, 7, 300])
def test_garbage_over_the_limit_closes_the_connection(online: Talk, size: int) -> None:
    data = bytes(MAX_GARBAGE_BYTES + 1) + POSITION_22.data
    for start in range(0, len(data), size):
        online.send(data[start : start + size])
    assert online.closed
    assert online.gateway.published == []


def test_single_wrong_checksums_do_not_close_the_connection(online: Talk) -> None:
    damaged = POSITION_22.data[:-3] + b"\x87\r\n"
    for _ in range(3):
        online.send(MAX_INVALID_FRAMES * damaged + POSITION_22.data)
    assert len(online.gateway.published) == 3


def test_frames_inside_a_frame_without_stop_bytes_are_read(online: Talk) -> None:
    online.send(b"xx\x40" + POSITION_22.data + ALARM_16.data)
    assert [entries[0].payload for entries, _ in online.gateway.published] == [
        made.payload for made in (entry_of(POSITION_22), entry_of(ALARM_16))
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 1000])
def test_segments_do_not_change_the_entries(online: Talk, size: int) -> None:
    frames = [golden for golden in GOLDEN if golden.number not in (0x01, 0x8A)]
    online.gateway.confirms_immediately = True
    data = b"".join(golden.data for golden in frames)
    for start in range(0, len(data), size):
        online.send(data[start : start + size])
    for _ in range(len(frames)):
        online.clock.advance(0)
    published = [entries[0] for entries, _ in online.gateway.published]
    arrivals = iter(range(len(frames)))
    for one, golden in zip(published, frames, strict=True):
        is_message = '"message":' in one.payload
        assert one == entry_of(golden, next(arrivals) if is_message else 0)
    answers = b"".join(bytes.fromhex(golden.answer) for golden in frames)
    assert online.received() == answers


def test_equal_messages_of_one_millisecond_are_kept_apart(online: Talk) -> None:
    message = encode_frame(Frame(0x9B, b"\x03OK\r\n", 1, extended=True))
    online.send(3 * message)
    assert len({entries[0].payload for entries, _ in online.gateway.published}) == 3
    online.clock.advance(1)
    online.send(message)
    assert online.gateway.published[-1][0][0].ts == "1970-01-01T00:00:01.000Z"


def test_positions_are_not_counted_as_messages() -> None:
    dialect = ConcoxDialect(Limits(), ConcoxSettings(), Flags(0), lambda: None)
    for golden, detached, messages in (
        (LOGIN, False, 0),
        (TIME, False, 0),
        (POSITION_12, True, 0),
        (ALARM_16, True, 0),
        (HEARTBEAT, True, 1),
        (ANSWER_15, True, 1),
    ):
        outcome = dialect.next_frame(bytearray(golden.data))
        assert isinstance(outcome, Decoded)
        assert dialect.is_detached(outcome.value) is detached
        assert dialect.count_messages(outcome.value) == messages


def test_unread_frames_are_estimated() -> None:
    dialect = ConcoxDialect(Limits(), ConcoxSettings(), Flags(0), lambda: None)
    assert dialect.count_detached(b"") == 0
    assert dialect.count_detached(POSITION_12.data + ANSWER_15.data + b"xx") == 3
    assert dialect.count_detached(b"abc" + POSITION_12.data[3:]) == 0


def test_command_is_written_with_a_flag_of_its_own(online: Talk) -> None:
    commands = [online.protocol.command_frame(IMEI, b"STATUS#", "") for _ in range(2)]
    frames = [decode_frame(command.data) for command in commands]
    assert all(isinstance(outcome, Decoded) for outcome in frames)
    assert commands[0].token != commands[1].token
    assert [command.codec for command in commands] == ["gt06", "gt06"]
    assert [outcome.value.serial for outcome in frames if isinstance(outcome, Decoded)] == [1, 2]


def test_answer_to_a_command_overtakes_messages_over_the_rate() -> None:
    talk = Talk(Concox().buildFactory, Limits(message_rate=1, message_burst=1))
    talk.gateway.confirms_immediately = True
    talk.send(LOGIN.data)
    command = talk.protocol.command_frame(IMEI, b"STATUS#", "")
    talk.protocol.write_command(command.data)
    talk.send(5 * LBS_28.data)
    published = len(talk.gateway.published)
    assert published < 5
    talk.send(encode_frame(answer_frame("OK", int(command.token, 16), 9)))
    (event,) = talk.events_of("answered")
    assert (event[1].text, event[1].token) == ("OK", command.token)
    assert len(talk.gateway.published) == published + 1


def test_long_message_is_counted_as_truncated() -> None:
    talk = Talk(Concox().buildFactory, Limits(message_bytes=64))
    talk.send(LOGIN.data + encode_frame(Frame(0x5E, bytes(100), 2)))
    assert talk.gateway.tally.truncated == 1


def test_positions_outlive_their_connection(online: Talk) -> None:
    online.send(POSITION_12.data)
    online.lose()
    assert online.gateway.cancelled == 0
    online.confirm()


def test_answer_of_an_alarm_is_not_written_after_the_end(online: Talk) -> None:
    online.send(ALARM_16.data)
    online.lose()
    online.confirm()
    assert online.received() == b""


def test_device_that_is_not_served_hears_only_that_its_connection_lives(talk: Talk) -> None:
    talk.gateway.admissions[IMEI] = Admission.REFUSED
    talk.send(LOGIN.data)
    assert talk.received() == bytes.fromhex(LOGIN.answer)
    talk.send(POSITION_12.data + ALARM_16.data + HEARTBEAT.data)
    assert talk.received() == bytes.fromhex(HEARTBEAT.answer)
    assert talk.gateway.published == []
    assert not talk.closed
