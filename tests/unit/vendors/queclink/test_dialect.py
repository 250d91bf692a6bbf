"""Conversations of devices with the server over TCP."""

from __future__ import annotations

import pytest

from tests.unit.vendors.queclink.conversation import (
    DEVICE,
    OTHER,
    answer,
    fri,
    heartbeat,
    information,
    talk,
)
from tracker.command import Answer
from tracker.interfaces import Admission, Rejection
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.vendors.dialect import AppendDetached, CommandAnswer, LogIn, Notice, Reply
from tracker.vendors.queclink import dialect as module
from tracker.vendors.queclink.dialect import QueclinkDialect
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.settings import QueclinkSettings

NOW = 1_700_000_000.0


def dialect(**settings: object) -> QueclinkDialect:
    chosen = QueclinkSettings(**settings)  # type: ignore[arg-type]
    return QueclinkDialect(Limits(), chosen, lambda: None)


def steps_of(one: QueclinkDialect, data: bytes) -> list[object]:
    outcome = one.next_frame(bytearray(data))
    assert isinstance(outcome, Decoded)
    return list(one.handle(outcome.value, NOW))


def test_first_frame_logs_its_device_in_on_a_connection_that_may_be_shared() -> None:
    login, append = steps_of(dialect(), fri())
    assert login == LogIn(DEVICE, b"", may_stay=True, shared=True)
    assert isinstance(append, AppendDetached)


def test_later_frames_log_in_only_another_device() -> None:
    one = dialect()
    steps_of(one, fri())
    assert [type(step) for step in steps_of(one, fri(count=2))] == [AppendDetached]
    assert [type(step) for step in steps_of(one, fri(OTHER))] == [LogIn, AppendDetached]
    assert [type(step) for step in steps_of(one, fri(count=3))] == [LogIn, AppendDetached]


def test_each_report_is_one_append_with_its_ack() -> None:
    _, append = steps_of(dialect(), fri(count=0xAB))
    assert isinstance(append, AppendDetached)
    assert append.ack == b"+SACK:00AB$"
    assert [entry.device_id for entry in append.entries] == [DEVICE]


def test_reports_are_not_acknowledged_if_the_setting_is_never() -> None:
    one = dialect(sack=False)
    _, append = steps_of(one, fri())
    assert isinstance(append, AppendDetached)
    assert append.ack == b""
    assert steps_of(one, heartbeat()) == [Reply(b"+SACK:GTHBD,1A0102,11F0$")]


def test_ack_of_a_report_leaves_only_after_the_append() -> None:
    device = talk()
    device.send(fri())
    assert device.received() == b""
    device.confirm()
    assert device.received() == b"+SACK:11F0$"


def test_report_that_is_sent_just_before_the_end_is_kept() -> None:
    device = talk()
    device.send(fri())
    device.lose()
    entries, appended = device.gateway.published[-1]
    assert [entry.device_id for entry in entries] == [DEVICE]
    assert not appended.called
    assert device.gateway.cancelled == 0


def test_heartbeat_is_answered_at_once() -> None:
    device = talk()
    device.send(heartbeat())
    assert device.received() == b"+SACK:GTHBD,1A0102,11F0$"
    assert device.gateway.published == []


def test_device_that_is_not_served_yet_stays_connected() -> None:
    device = talk()
    device.gateway.admissions[DEVICE] = Admission.REFUSED
    device.send(fri())
    assert device.received() == b""
    assert not device.gateway.published


def test_answer_to_a_command_has_its_serial_number_as_the_token() -> None:
    one = dialect(password_file={"*": "x"})
    frame = one.command(DEVICE, b"GTRTO=,1,,,,,,", "")
    one.command_written(frame.data)
    *_, found = steps_of(one, answer(frame.token))
    text = answer(frame.token).decode()
    assert found == CommandAnswer(Answer("ascii", text, token=frame.token))


def test_only_the_answer_to_the_written_command_is_awaited() -> None:
    one = dialect()
    outcome = one.next_frame(bytearray(answer("000B")))
    assert isinstance(outcome, Decoded)
    assert not one.is_awaited(outcome.value)
    one.command_written(b"AT+GTRTO=x,1,,,,,,000B$")
    assert one.is_awaited(outcome.value)
    one.command_written(b"AT+GTRTO=x,1,,,,,,000C$")
    assert not one.is_awaited(outcome.value)


def test_awaited_answer_is_found_behind_messages() -> None:
    one = dialect()
    one.command_written(b"AT+GTRTO=x,1,,,,,,000B$")
    before = information(1) + answer("000A") + information(2)
    buffer = bytearray(before)
    assert one.find_awaited(buffer) is None
    buffer += answer("000B")[:40]
    assert one.find_awaited(buffer) is None
    buffer += answer("000B")[40:] + information(3)
    found = one.find_awaited(buffer)
    assert found is not None
    start, outcome = found
    assert (start, outcome.used) == (len(before), len(answer("000B")))


def test_search_for_an_answer_copies_the_buffer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[object] = []

    def spy(buffer: bytes | bytearray, limit: int) -> object:
        searched.append(buffer)
        return decode_frame(buffer, limit)

    one = dialect()
    one.command_written(b"AT+GTRTO=x,1,,,,,,000B$")
    monkeypatch.setattr(module, "decode_frame", spy)
    assert one.find_awaited(bytearray(information(1) * 10)) is None
    assert len(searched) == 10
    assert len({id(buffer) for buffer in searched}) == 1


def test_positions_are_exempt_from_the_rate_of_messages() -> None:
    one = dialect()
    counts = [
        one.count_messages(outcome.value)
        for data in (fri(), heartbeat(), information(1), answer("0001"))
        if isinstance(outcome := one.next_frame(bytearray(data)), Decoded)
    ]
    assert counts == [0, 0, 1, 1]


def test_only_reports_and_answers_are_detached() -> None:
    one = dialect()
    detached = [
        one.is_detached(outcome.value)
        for data in (fri(), heartbeat(), information(1), answer("0001"), b"\r\n")
        if isinstance(outcome := one.next_frame(bytearray(data)), Decoded)
    ]
    assert detached == [True, False, True, True, False]


def test_frame_without_a_device_id_harms_no_other_frame() -> None:
    device = talk()
    device.gateway.confirms_immediately = True
    device.send(fri(count=1) + b"+RESP:GTFRI,060100,unknown,,$" + fri(count=2))
    assert device.received() == b"+SACK:0001$+SACK:0002$"
    assert device.gateway.kinds == [Rejection.CONTENT]


def test_report_with_fewer_positions_than_announced_is_noticed_once() -> None:
    device = talk()
    device.gateway.confirms_immediately = True
    short = fri().replace(b",00,1,1,4.3", b",00,2,1,4.3")
    device.send(short + short)
    assert len(device.events_of("noticed")) == 1
    assert device.received() == b"+SACK:11F0$+SACK:11F0$"


def test_positions_over_the_limit_of_records_are_not_read() -> None:
    one = QueclinkDialect(Limits(records=1), QueclinkSettings(), lambda: None)
    group = b"1,4.3,92,70.0,121.354335,31.222073,20090214013254,0460,0000,18d8,6141,00,"
    data = fri().replace(b",00,1," + group, b",00,2," + group + group)
    _, notice, append = steps_of(one, data)
    assert isinstance(notice, Notice)
    assert isinstance(append, AppendDetached)
    assert len(append.entries) == 1


def test_long_connection_without_any_frame_is_closed_at_the_limit() -> None:
    device = talk()
    device.send(fri() + b"+RESP:GT" + b"x" * 8192)
    assert device.closed
    assert device.gateway.kinds == [Rejection.LENGTH]


def test_unread_frames_are_counted_by_their_starts() -> None:
    assert dialect().count_detached(fri() + information(1) + b"+RESP:GTF") == 3


def test_connection_that_sends_only_invalid_frames_is_closed_at_the_limit() -> None:
    for garbage in (b"x$", b"+RESP:GT$", b"+RESP:GTFRI,060100,unknown,,$"):
        device = talk()
        device.send(fri())
        device.send(garbage * (8192 // len(garbage)))
        assert not device.closed
        device.send(fri(count=2))  # begins a new count
        device.send(garbage * (8192 // len(garbage)))
        assert not device.closed
        device.send(garbage)
        assert device.closed
