"""The connection that all vendors share, with devices that speak in lines of text.

What a step promises is tested here, once for all vendors.
"""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from tests.unit.vendors.lines import DEVICE, LOGIN, SETTLES, LineTalk, ask, logged_in, published
from tracker.command import Answer
from tracker.interfaces import (
    Admission,
    IConnection,
    NotAppended,
    Rejection,
    Traffic,
)
from tracker.limits import Limits
from tracker.vendors.dialect import OTHER_DEVICE
from tracker.vendors.leftovers import MAX_FRAMES_AT_END
from tracker.vendors.state import TRANSITIONS, Event, Stage
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY
from tracker.vendors.timer import CLOSE_TIMEOUT

#: Two messages at once, one a second.
SLOW = Limits(message_rate=1, message_burst=2, buffer_bytes=64, idle_timeout=100)


def test_it_keeps_to_its_interfaces(online: LineTalk) -> None:
    assert verifyObject(IConnection, online.protocol)
    assert verifyObject(IPushProducer, online.protocol)


# States.


def test_every_state_knows_every_event_that_can_happen_in_it() -> None:
    assert TRANSITIONS.keys() == set(Stage)
    for state, following in TRANSITIONS.items():
        assert {Event.RETIRED, Event.ENDED} <= following.keys()
        assert (Event.LOGGED_IN in following) is (state is Stage.LOGIN)
        assert following[Event.ENDED] is Stage.CLOSED


# LogIn.


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_login_in_pieces_of_any_size_is_accepted(talk: LineTalk, size: int) -> None:
    for start in range(0, len(LOGIN), size):
        assert talk.answer() == b""
        talk.send(LOGIN[start : start + size])
    assert talk.answer() == b"welcome\n"
    assert talk.protocol.device_id == DEVICE


@pytest.mark.parametrize(
    ("admission", "answer"), [(Admission.REFUSED, b"no\n"), (Admission.LATER, b"")]
)
def test_a_device_that_is_not_served_is_disconnected(
    talk: LineTalk, admission: Admission, answer: bytes
) -> None:
    talk.gateway.admissions[DEVICE] = admission
    talk.send(LOGIN + b"records A\nnote B\n")
    assert talk.answer() == answer
    assert talk.closed
    assert talk.protocol.device_id is None
    assert not talk.gateway.published


def test_the_same_login_again_is_accepted_in_a_turn_of_its_own(online: LineTalk) -> None:
    online.protocol.dataReceived(LOGIN + LOGIN)
    assert online.answer() == b""
    online.clock.advance(0)
    assert online.answer() == b"welcome\n" * 2
    assert len(online.told("login")) == 1


def test_a_login_without_an_answer_may_be_repeated(talk: LineTalk) -> None:
    shown: list[tuple[Traffic, bytes]] = []
    talk.gateway.on_login = lambda connection: connection.observe(lambda *what: shown.append(what))
    talk.send(b"hail device-1\nhail device-1\nrecords A\n")
    assert published(talk) == ["A"]
    talk.confirm()
    assert talk.answer() == b"1\n"
    assert [data for kind, data in shown if kind is Traffic.SENT] == [b"1\n"]


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_a_refusal_without_an_answer_ends_the_connection(
    talk: LineTalk, admission: Admission
) -> None:
    talk.gateway.admissions[DEVICE] = admission
    talk.send(b"hail device-1\nrecords A\n")
    assert talk.closed
    assert not talk.gateway.published


def test_a_login_of_another_device_ends_the_connection(online: LineTalk) -> None:
    online.send(b"login device-2\nrecords A\n")
    assert (online.reason, online.gateway.kinds) == (OTHER_DEVICE, [Rejection.LOGIN])
    assert online.closed
    assert online.answer() == b""
    assert not online.gateway.published


# Append.


def test_an_ack_leaves_only_after_the_log_has_confirmed(online: LineTalk) -> None:
    online.send(b"records A B\n")
    assert published(online) == ["A", "B"]
    online.clock.advance(60)
    assert online.answer() == b""
    online.confirm()
    assert online.answer() == b"2\n"


def test_nothing_is_handled_while_records_are_not_confirmed(online: LineTalk) -> None:
    online.send(b"records A\nrecords B\nnote C\ntime\n")
    assert published(online) == ["A"]
    online.confirm()
    assert online.answer() == b"1\n"
    assert published(online) == ["A", "B"]


@pytest.mark.parametrize("end", ["close", "lose", "refused"])
def test_records_that_are_not_confirmed_get_no_ack(online: LineTalk, end: str) -> None:
    online.send(b"records A\n")
    if end == "close":
        online.protocol.close()
    elif end == "lose":
        online.lose()
    else:
        online.gateway.published[-1][1].errback(NotAppended("stopping"))
    assert online.gateway.cancelled == (end != "refused")
    assert online.answer() == b""
    assert online.closed or end == "lose"
    assert online.told("lost") == []
    assert online.told("closed") == [("closed",)]
    assert online.timers == 0


# AppendDetached.


def test_what_is_never_repeated_holds_nothing_up(online: LineTalk) -> None:
    online.send(b"note A\nnote B\nrecords C\n")
    assert published(online) == ["A", "B", "C"]


def test_an_alarm_is_acknowledged_once_it_is_durable(online: LineTalk) -> None:
    online.send(b"alarm A\nnote B\n")
    assert online.answer() == b""
    online.confirm()
    assert online.answer() == b""
    online.gateway.published[0][1].callback(None)
    assert online.answer() == b"alarm\n"


def test_an_alarm_that_is_durable_after_the_end_is_not_acknowledged(online: LineTalk) -> None:
    online.send(b"alarm A\n")
    online.protocol.close()
    assert not online.gateway.cancelled
    online.confirm()
    assert online.answer() == b""


@pytest.mark.parametrize("line", [b"note A\n", b"alarm A\n"])
def test_without_room_a_message_is_waited_for(online: LineTalk, line: bytes) -> None:
    online.gateway.accepts_detached = False
    online.send(line + b"records B\n")
    assert published(online) == ["A"]
    online.confirm()
    assert published(online) == ["A", "B"]
    assert online.answer() == (b"alarm\n" if line[:1] == b"a" else b"")


def test_a_message_without_room_is_lost_with_its_connection(online: LineTalk) -> None:
    online.gateway.accepts_detached = False
    online.send(b"note A\n")
    online.lose()
    assert online.told("lost") == [("lost", 1)]


def test_only_so_many_messages_are_under_way(online: LineTalk) -> None:
    online.send(b"note A\n" * (MAX_MESSAGES_UNDER_WAY + 2))
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY
    for _, kept in online.gateway.published[:2]:
        kept.callback(None)
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY + 2


def test_messages_that_are_unread_outlive_their_connection(online: LineTalk) -> None:
    several = b"note B\nrecords C\nskip\n.\n" * MAX_FRAMES_AT_END
    online.send(b"records A\n" + several + b"note D\nrecor")
    online.lose()
    online.clock.pump([0] * 5)
    assert published(online) == ["A", *"B" * MAX_FRAMES_AT_END, "D"]
    assert online.timers == 0


def test_messages_behind_a_mistake_do_not(online: LineTalk) -> None:
    online.send(b"records A\nnote B\nnonsense\nnote C\n")
    online.lose()
    assert published(online) == ["A", "B"]


# Reply.


def test_a_reply_leaves_in_a_turn_of_its_own(online: LineTalk) -> None:
    online.protocol.dataReceived(b"time\ntime\n")
    assert online.answer() == b""
    online.clock.advance(0)
    assert online.answer() == b"time\ntime\n"


def test_a_heartbeat_is_answered_only_when_all_before_it_is_durable(online: LineTalk) -> None:
    online.send(b"note A\nnote B\nbeat\nnote C\n")
    first, second = [kept for _, kept in online.gateway.published]
    second.callback(None)
    online.clock.advance(60)
    assert online.answer() == b""
    first.callback(None)
    assert online.answer() == b"beat\n"
    assert published(online) == ["A", "B", "C"]


def test_a_heartbeat_behind_what_was_given_up_is_never_answered(online: LineTalk) -> None:
    online.send(b"note A\nbeat\n")
    online.gateway.published[0][1].errback(NotAppended("stopping"))
    assert online.answer() == b""
    assert online.closed


def test_a_heartbeat_that_waits_ends_with_its_connection(online: LineTalk) -> None:
    online.send(b"note A\nbeat\n")
    online.lose()
    online.confirm()
    assert online.answer() == b""
    assert online.timers == 0


@pytest.mark.parametrize("keeps", [True, False])
def test_a_heartbeat_waits_for_what_it_carries_itself(online: LineTalk, keeps: bool) -> None:
    online.gateway.accepts_detached = keeps
    online.send(b"status A\nnote B\n")
    assert published(online) == ["A"]
    assert online.answer() == b""
    online.confirm()
    online.clock.advance(0)
    assert online.answer() == b"beat\n"
    assert published(online) == ["A", "B"]


def test_a_heartbeat_with_nothing_before_it_is_answered(online: LineTalk) -> None:
    online.send(b"beat\n")
    assert online.answer() == b"beat\n"


# CommandAnswer, Notice, ProtocolError.


def test_an_answer_is_passed_on_after_it_was_published(online: LineTalk) -> None:
    online.send(b"answer A\n")
    assert published(online) == ["A"]
    assert online.told("answered") == [("answered", Answer("lines", "A"))]


def test_a_notice_is_passed_on(online: LineTalk) -> None:
    online.send(b"odd A\n")
    assert online.told("noticed") == [("noticed", "A")]


@pytest.mark.parametrize(
    ("line", "kind"), [(b"skip\n", Rejection.CRC), (b"pardon\n", Rejection.CONTENT)]
)
def test_a_frame_that_is_wrong_by_itself_is_counted_and_skipped(
    online: LineTalk, line: bytes, kind: Rejection
) -> None:
    online.send(line + b"records A\n")
    assert online.gateway.kinds == [kind]
    online.confirm()
    assert online.answer() == b"1\n"


@pytest.mark.parametrize(
    ("line", "kind", "answer"),
    [(b"wrong\n", Rejection.CONTENT, b"bye\n"), (b"nonsense\n", Rejection.PREAMBLE, b"")],
)
def test_an_error_ends_the_connection_and_nothing_behind_it_is_read(
    online: LineTalk, line: bytes, kind: Rejection, answer: bytes
) -> None:
    online.send(line + b"note A\nrecords B\n")
    assert online.gateway.kinds == [kind]
    assert online.answer() == answer
    assert online.closed
    assert not online.gateway.published


# What is not read.


def test_a_peer_that_sends_too_much_is_not_read_until_that_is_handled() -> None:
    talk = logged_in(Limits(buffer_bytes=64))
    talk.send(b"records A\n" * 7)
    assert talk.transport.producerState == "producing"
    talk.send(b"records A\n")
    assert talk.transport.producerState == "paused"
    assert talk.unread == 70
    talk.confirm()
    assert talk.transport.producerState == "producing"


def test_a_peer_that_does_not_read_is_not_read_and_nothing_is_handled(online: LineTalk) -> None:
    online.transport.producer.pauseProducing()
    assert online.transport.producerState == "paused"
    online.send(b"note A\n")
    assert published(online) == []
    online.transport.producer.resumeProducing()
    assert published(online) == ["A"]
    assert online.transport.producerState == "producing"


def test_messages_over_the_rate_wait_and_an_answer_overtakes_them() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLES)
    assert ask(talk) == ["turn"]
    talk.send(b"note A\nnote B\nnote C\nnote D\nanswer E\n")
    assert published(talk) == ["A", "B", "E"]
    assert talk.gateway.tally.paused_for_messages == 1
    talk.clock.advance(1.1)
    assert published(talk) == ["A", "B", "E", "C"]


def test_an_answer_that_arrives_later_overtakes_them_too() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLES)
    assert ask(talk) == ["turn"]
    talk.send(b"note A\nnote B\nnote C\nans")
    talk.send(b"wer D\n")
    assert published(talk) == ["A", "B", "D"]


def test_an_answer_in_front_is_not_limited() -> None:
    talk = logged_in(SLOW)
    talk.clock.advance(SETTLES)
    talk.send(b"note A\nnote B\n")
    assert ask(talk) == ["turn"]
    talk.send(b"answer C\n")
    assert talk.gateway.tally.paused_for_messages == 0
    talk.send(b"note D\n")
    assert published(talk) == ["A", "B", "C"]
    assert talk.gateway.tally.paused_for_messages == 1


def test_a_connection_that_is_held_is_not_silent() -> None:
    talk = logged_in(Limits(message_rate=0.1, message_burst=10, idle_timeout=5))
    talk.send(b"note A\nnote B\n")
    talk.clock.pump([0.9] * 10)
    assert not talk.closed
    talk.clock.pump([0.9] * 10)
    assert published(talk) == ["A", "B"]
    assert talk.closed  # since it has sent nothing more


def test_a_message_ahead_of_the_login_is_no_message_of_a_device(talk: LineTalk) -> None:
    talk.send(b"note A\n" + LOGIN)
    assert talk.closed
    assert not talk.gateway.published


@pytest.mark.parametrize("taken", [0, 1, ConnectionLost()])
def test_what_the_socket_does_not_take_is_written_by_the_transport(
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
    assert online.answer() == left + b"3\n"


# ConnectionTimer and the end.


def test_a_login_that_is_late_ends_the_connection(talk: LineTalk) -> None:
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


def test_a_connection_that_lingers_is_aborted() -> None:
    talk = logged_in(lingers=True)
    talk.protocol.close()
    talk.protocol.close()
    assert not talk.transport.disconnected
    talk.clock.advance(CLOSE_TIMEOUT)
    assert talk.transport.disconnected
    assert talk.timers == 0


def test_what_comes_after_the_end_is_ignored() -> None:
    talk = logged_in(lingers=True)
    talk.protocol.close()
    talk.send(b"note A\n" * 100)
    assert talk.unread == 0
    assert not talk.gateway.published


def test_a_connection_retires_when_nothing_is_under_way(online: LineTalk) -> None:
    online.send(b"records A\nrecords B\n")
    online.protocol.retire()
    online.confirm()
    assert not online.closed
    online.confirm()
    assert online.answer() == b"1\n1\n"
    assert online.closed
    assert online.timers == 0


def test_a_connection_without_a_device_retires_at_once(talk: LineTalk) -> None:
    talk.send(LOGIN[:3])
    talk.protocol.retire()
    assert talk.closed
    assert talk.timers == 0
