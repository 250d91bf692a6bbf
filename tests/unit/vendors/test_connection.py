"""The connection that all vendors share, with devices that send lines of text.

These tests check each step once for all vendors.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from tests.unit.vendors.lines import (
    DEVICE,
    LOGIN,
    SETTLE_TIME,
    LineTalk,
    logged_in,
    published,
    request_slot,
)
from tests.unit.vendors.talk import SlowWork
from tracker.command import Answer
from tracker.interfaces import (
    Admission,
    IConnection,
    NotAppended,
    Rejection,
    Traffic,
)
from tracker.limits import Limits
from tracker.vendors.budget import OWN_BURST
from tracker.vendors.dialect import OTHER_DEVICE
from tracker.vendors.leftovers import MAX_FRAMES_AT_END
from tracker.vendors.state import TRANSITIONS, Event, Stage
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY
from tracker.vendors.timer import CLOSE_TIMEOUT

#: A burst of two messages, then one message per second.
SLOW = Limits(message_rate=1, message_burst=2, buffer_bytes=64, idle_timeout=100)


def test_connection_provides_its_interfaces(online: LineTalk) -> None:
    assert verifyObject(IConnection, online.protocol)
    assert verifyObject(IPushProducer, online.protocol)


# Stages.


def test_every_stage_has_a_transition_for_each_possible_event() -> None:
    assert TRANSITIONS.keys() == set(Stage)
    for stage, following in TRANSITIONS.items():
        assert {Event.RETIRED, Event.ENDED} <= following.keys()
        assert (Event.LOGGED_IN in following) is (stage is not Stage.CLOSED)
        assert (Event.NONE_SERVED in following) is (stage is not Stage.CLOSED)
        assert following[Event.ENDED] is Stage.CLOSED


# LogIn.


@pytest.mark.parametrize("size", [1, 3, 100])
def test_login_in_pieces_of_any_size_is_accepted(talk: LineTalk, size: int) -> None:
    for start in range(0, len(LOGIN), size):
        assert talk.received() == b""
        talk.send(LOGIN[start : start + size])
    assert talk.received() == b"welcome\n"
    assert talk.protocol.device_id == DEVICE


@pytest.mark.parametrize(
    ("admission", "reply"), [(Admission.REFUSED, b"no\n"), (Admission.LATER, b"")]
)
def test_device_that_is_not_served_is_disconnected(
    talk: LineTalk, admission: Admission, reply: bytes
) -> None:
    talk.gateway.admissions[DEVICE] = admission
    talk.send(LOGIN + b"records A\nnote B\n")
    assert talk.received() == reply
    assert talk.closed
    assert talk.protocol.device_id is None
    assert not talk.gateway.published


def test_work_for_skipped_frames_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.vendors.talk.Clock", SlowWork)
    talk = LineTalk(Limits(peer_work=0.01, spare_work=0.001))
    talk.send(LOGIN)
    clock: Any = talk.clock
    clock.step = OWN_BURST * 0.4
    talk.protocol.dataReceived(b"skip\n" * 20)
    clock.step = 0.0
    assert talk.gateway.tally.paused_for_work
    assert talk.unread
    assert not talk.closed
    talk.clock.pump([1] * 100)
    assert not talk.unread


def test_repeated_login_is_accepted_in_the_next_reactor_turn(online: LineTalk) -> None:
    online.protocol.dataReceived(LOGIN + LOGIN)
    assert online.received() == b""
    online.clock.advance(0)
    assert online.received() == b"welcome\n" * 2
    assert len(online.events_of("login")) == 1


def test_login_without_a_reply_may_be_repeated(talk: LineTalk) -> None:
    events: list[tuple[Traffic, bytes]] = []
    talk.gateway.on_login = lambda connection: connection.observe(lambda *what: events.append(what))
    talk.send(b"greet device-1\ngreet device-1\nrecords A\n")
    assert published(talk) == ["A"]
    talk.confirm()
    assert talk.received() == b"1\n"
    assert [data for kind, data in events if kind is Traffic.SENT] == [b"1\n"]


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_refusal_without_a_reply_closes_the_connection(
    talk: LineTalk, admission: Admission
) -> None:
    talk.gateway.admissions[DEVICE] = admission
    talk.send(b"greet device-1\nrecords A\n")
    assert talk.closed
    assert not talk.gateway.published


def test_login_of_another_device_closes_the_connection(online: LineTalk) -> None:
    online.send(b"login device-2\nrecords A\n")
    assert (online.reason, online.gateway.kinds) == (OTHER_DEVICE, [Rejection.LOGIN])
    assert online.closed
    assert online.received() == b""
    assert not online.gateway.published


# Append.


def test_ack_leaves_only_after_the_log_has_confirmed(online: LineTalk) -> None:
    online.send(b"records A B\n")
    assert published(online) == ["A", "B"]
    online.clock.advance(60)
    assert online.received() == b""
    online.confirm()
    assert online.received() == b"2\n"


def test_no_frame_is_handled_while_records_are_not_appended(online: LineTalk) -> None:
    online.send(b"records A\nrecords B\nnote C\ntime\n")
    assert published(online) == ["A"]
    online.confirm()
    assert online.received() == b"1\n"
    assert published(online) == ["A", "B"]


@pytest.mark.parametrize("end", ["close", "lose", "refused"])
def test_records_that_are_not_appended_get_no_ack(online: LineTalk, end: str) -> None:
    online.send(b"records A\n")
    if end == "close":
        online.protocol.close()
    elif end == "lose":
        online.lose()
    else:
        online.gateway.published[-1][1].errback(NotAppended("stopping"))
    assert online.gateway.cancelled == (end != "refused")
    assert online.received() == b""
    assert online.closed or end == "lose"
    assert online.events_of("lost") == []
    assert online.events_of("closed") == [("closed",)]
    assert online.timers == 0


# AppendDetached.


def test_detached_messages_do_not_delay_later_frames(online: LineTalk) -> None:
    online.send(b"note A\nnote B\nrecords C\n")
    assert published(online) == ["A", "B", "C"]


def test_detached_message_is_acknowledged_once_it_is_appended(online: LineTalk) -> None:
    online.send(b"alarm A\nnote B\n")
    assert online.received() == b""
    online.confirm()
    assert online.received() == b""
    online.gateway.published[0][1].callback(None)
    assert online.received() == b"alarm\n"


def test_message_appended_after_the_end_is_not_acknowledged(online: LineTalk) -> None:
    online.send(b"alarm A\n")
    online.protocol.close()
    assert not online.gateway.cancelled
    online.confirm()
    assert online.received() == b""


@pytest.mark.parametrize("line", [b"note A\n", b"alarm A\n"])
def test_message_that_cannot_be_detached_holds_the_connection(
    online: LineTalk, line: bytes
) -> None:
    online.gateway.accepts_detached = False
    online.send(line + b"records B\n")
    assert published(online) == ["A"]
    online.confirm()
    assert published(online) == ["A", "B"]
    assert online.received() == (b"alarm\n" if line[:1] == b"a" else b"")


def test_message_that_cannot_be_detached_is_lost_with_its_connection(online: LineTalk) -> None:
    online.gateway.accepts_detached = False
    online.send(b"note A\n")
    online.lose()
    assert online.events_of("lost") == [("lost", 1)]


def test_number_of_messages_under_way_is_limited(online: LineTalk) -> None:
    online.send(b"note A\n" * (MAX_MESSAGES_UNDER_WAY + 2))
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY
    for _, appended in online.gateway.published[:2]:
        appended.callback(None)
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY + 2


def test_unread_messages_outlive_their_connection(online: LineTalk) -> None:
    several = b"note B\nrecords C\nskip\n.\n" * MAX_FRAMES_AT_END
    online.send(b"records A\n" + several + b"note D\nrecor")
    online.lose()
    online.clock.pump([0] * 5)
    assert published(online) == ["A", *"B" * MAX_FRAMES_AT_END, "D"]
    assert online.timers == 0


def test_unread_messages_behind_a_malformed_frame_are_dropped(online: LineTalk) -> None:
    online.send(b"records A\nnote B\nnonsense\nnote C\n")
    online.lose()
    assert published(online) == ["A", "B"]


# Reply.


def test_reply_is_written_in_the_next_reactor_turn(online: LineTalk) -> None:
    online.protocol.dataReceived(b"time\ntime\n")
    assert online.received() == b""
    online.clock.advance(0)
    assert online.received() == b"time\ntime\n"


def test_durable_reply_waits_for_all_earlier_messages(online: LineTalk) -> None:
    online.send(b"note A\nnote B\nbeat\nnote C\n")
    first, second = [appended for _, appended in online.gateway.published]
    second.callback(None)
    online.clock.advance(60)
    assert online.received() == b""
    first.callback(None)
    assert online.received() == b"beat\n"
    assert published(online) == ["A", "B", "C"]


def test_durable_reply_is_not_written_after_a_given_up_message(online: LineTalk) -> None:
    online.send(b"note A\nbeat\n")
    online.gateway.published[0][1].errback(NotAppended("stopping"))
    assert online.received() == b""
    assert online.closed


def test_waiting_durable_reply_ends_with_its_connection(online: LineTalk) -> None:
    online.send(b"note A\nbeat\n")
    online.lose()
    online.confirm()
    assert online.received() == b""
    assert online.timers == 0


@pytest.mark.parametrize("accepts", [True, False])
def test_durable_reply_waits_for_the_entries_of_its_own_frame(
    online: LineTalk, accepts: bool
) -> None:
    online.gateway.accepts_detached = accepts
    online.send(b"status A\nnote B\n")
    assert published(online) == ["A"]
    assert online.received() == b""
    online.confirm()
    online.clock.advance(0)
    assert online.received() == b"beat\n"
    assert published(online) == ["A", "B"]


def test_durable_reply_without_earlier_messages_is_written(online: LineTalk) -> None:
    online.send(b"beat\n")
    assert online.received() == b"beat\n"


# CommandAnswer, Notice, ProtocolError.


def test_command_answer_is_passed_on_after_its_entry_was_published(online: LineTalk) -> None:
    online.send(b"answer A\n")
    assert published(online) == ["A"]
    assert online.events_of("answered") == [("answered", Answer("lines", "A"))]


def test_notice_about_a_frame_is_passed_to_the_gateway(online: LineTalk) -> None:
    online.send(b"odd A\n")
    assert online.events_of("noticed") == [("noticed", "A")]


@pytest.mark.parametrize(
    ("line", "kind"), [(b"skip\n", Rejection.CRC), (b"pardon\n", Rejection.CONTENT)]
)
def test_invalid_frame_is_counted_and_skipped(
    online: LineTalk, line: bytes, kind: Rejection
) -> None:
    online.send(line + b"records A\n")
    assert online.gateway.kinds == [kind]
    online.confirm()
    assert online.received() == b"1\n"


@pytest.mark.parametrize(
    ("line", "kind", "reply"),
    [(b"wrong\n", Rejection.CONTENT, b"bye\n"), (b"nonsense\n", Rejection.PREAMBLE, b"")],
)
def test_fatal_error_closes_the_connection_and_later_bytes_are_not_read(
    online: LineTalk, line: bytes, kind: Rejection, reply: bytes
) -> None:
    online.send(line + b"note A\nrecords B\n")
    assert online.gateway.kinds == [kind]
    assert online.received() == reply
    assert online.closed
    assert not online.gateway.published


# Holds and pauses.


def test_transport_is_paused_while_too_many_bytes_are_unread() -> None:
    talk = logged_in(Limits(buffer_bytes=64))
    talk.send(b"records A\n" * 7)
    assert talk.transport.producerState == "producing"
    talk.send(b"records A\n")
    assert talk.transport.producerState == "paused"
    assert talk.unread == 70
    talk.confirm()
    assert talk.transport.producerState == "producing"


def test_transport_is_paused_while_its_peer_does_not_read(online: LineTalk) -> None:
    online.transport.producer.pauseProducing()
    assert online.transport.producerState == "paused"
    online.send(b"note A\n")
    assert published(online) == []
    online.transport.producer.resumeProducing()
    assert published(online) == ["A"]
    assert online.transport.producerState == "producing"


def test_command_answer_overtakes_messages_over_the_rate() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLE_TIME)
    assert request_slot(talk) == ["written"]
    talk.send(b"note A\nnote B\nnote C\nnote D\nanswer E\n")
    assert published(talk) == ["A", "B", "E"]
    assert talk.gateway.tally.paused_for_messages == 1
    talk.clock.advance(1.1)
    assert published(talk) == ["A", "B", "E", "C"]


def test_command_answer_that_arrives_later_overtakes_messages_over_the_rate() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLE_TIME)
    assert request_slot(talk) == ["written"]
    talk.send(b"note A\nnote B\nnote C\nans")
    talk.send(b"wer D\n")
    assert published(talk) == ["A", "B", "D"]


def test_first_command_answer_is_not_delayed_by_the_message_rate() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLE_TIME)
    talk.send(b"note A\nnote B\n")
    assert request_slot(talk) == ["written"]
    talk.send(b"answer C\n")
    assert talk.gateway.tally.paused_for_messages == 0
    talk.send(b"note D\n")
    assert published(talk) == ["A", "B", "C"]
    assert talk.gateway.tally.paused_for_messages == 1


def test_connection_that_is_paused_for_its_rate_is_not_idle() -> None:
    talk = logged_in(Limits(message_rate=0.1, message_burst=10, idle_timeout=5))
    talk.send(b"note A\nnote B\n")
    talk.clock.pump([0.9] * 10)
    assert not talk.closed
    talk.clock.pump([0.9] * 10)
    assert published(talk) == ["A", "B"]
    assert talk.closed  # it has sent nothing else


def test_message_before_the_login_is_rejected(talk: LineTalk) -> None:
    talk.send(b"note A\n" + LOGIN)
    assert talk.closed
    assert not talk.gateway.published


@pytest.mark.parametrize("taken", [0, 1, ConnectionLost()])
def test_transport_writes_bytes_that_the_socket_does_not_accept(
    online: LineTalk, taken: int | Exception
) -> None:
    direct: list[bytes] = []

    def write_some(data: bytes) -> int | Exception:
        direct.append(data)
        return len(data) if len(direct) == 1 else taken

    online.gateway.confirms_immediately = True
    online.protocol._wire._write_directly = write_some
    online.send(b"records A\nrecords B C\nrecords D E F\n")
    assert direct == [b"1\n", b"2\n"]
    left = direct[1][taken if isinstance(taken, int) else 0 :]
    assert online.received() == left + b"3\n"


# Timeouts and the end.


def test_login_timeout_closes_the_connection(talk: LineTalk) -> None:
    talk.send(LOGIN[:-1])
    talk.clock.advance(talk.limits.login_timeout)
    assert talk.gateway.kinds == [Rejection.NO_LOGIN]
    assert talk.closed
    assert talk.timers == 0


@pytest.mark.parametrize("sign", [b".\n", b"time\n", b"note A\n", b"skip\n.\n"])
def test_any_whole_frame_is_a_sign_of_life(online: LineTalk, sign: bytes) -> None:
    for _ in range(3):
        online.clock.advance(online.limits.idle_timeout - 1)
        online.send(sign)
    assert not online.closed
    online.send(b"record")
    online.clock.advance(online.limits.idle_timeout)
    assert online.gateway.kinds[-1] is Rejection.IDLE
    assert online.closed
    assert online.timers == 0


def test_connection_that_does_not_close_is_aborted() -> None:
    talk = logged_in(lingers=True)
    talk.protocol.close()
    talk.protocol.close()
    assert not talk.transport.disconnected
    talk.clock.advance(CLOSE_TIMEOUT)
    assert talk.transport.disconnected
    assert talk.timers == 0


def test_bytes_after_the_end_are_ignored() -> None:
    talk = logged_in(lingers=True)
    talk.protocol.close()
    talk.send(b"note A\n" * 100)
    assert talk.unread == 0
    assert not talk.gateway.published


def test_connection_retires_when_nothing_is_under_way(online: LineTalk) -> None:
    online.send(b"records A\nrecords B\n")
    online.protocol.retire()
    online.confirm()
    assert not online.closed
    online.confirm()
    assert online.received() == b"1\n1\n"
    assert online.closed
    assert online.timers == 0


def test_connection_without_a_device_retires_at_once(talk: LineTalk) -> None:
    talk.send(LOGIN[:3])
    talk.protocol.retire()
    assert talk.closed
    assert talk.timers == 0
