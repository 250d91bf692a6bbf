"""Conversations of devices with the dialect."""

from __future__ import annotations

import pytest

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.concox.golden import (
    ALARM_16,
    ANSWER_15,
    HEARTBEAT,
    IMEI,
    LOGIN,
    POSITION_12,
    POSITION_22,
    TIME,
    ZONED_LOGIN,
)
from tests.unit.vendors.talk import Talk
from tracker.interfaces import Rejection
from tracker.vendors.concox.frames import Frame, encode_frame
from tracker.vendors.concox.vendor import Concox


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
