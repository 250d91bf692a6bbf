"""Devices that wait on a connection until they are served, and devices that share one."""

from __future__ import annotations

import pytest

from tests.unit.vendors.lines import DEVICE, SETTLE_TIME, LineTalk, published, request_slot
from tracker.interfaces import Admission, ConnectionEnded, Rejection, Traffic
from tracker.vendors import steps
from tracker.vendors.dialect import OTHER_DEVICE
from tracker.vendors.state import Stage
from tracker.vendors.steps import MAX_DEVICES

OTHER = "device-2"
REFUSALS = [Admission.REFUSED, Admission.LATER, Admission.OTHER_VENDOR]


@pytest.fixture
def waiting(talk: LineTalk) -> LineTalk:
    """Provide a conversation with a device that waits."""
    talk.gateway.admissions[DEVICE] = Admission.REFUSED
    talk.send(f"stay {DEVICE}\n".encode())
    assert talk.received() == b"welcome\n"
    return talk


@pytest.fixture
def shared(talk: LineTalk) -> LineTalk:
    """Provide a connection that two devices share; the second one is current."""
    talk.send(f"share {DEVICE}\nshare {OTHER}\n".encode())
    assert talk.received() == b"welcome\n" * 2
    return talk


def stage(talk: LineTalk) -> Stage:
    return talk.protocol._exchange.state.stage


# Waiting.


@pytest.mark.parametrize("admission", REFUSALS)
def test_device_that_may_stay_gets_its_login_accepted_and_waits(
    talk: LineTalk, admission: Admission
) -> None:
    talk.gateway.admissions[DEVICE] = admission
    talk.send(f"stay {DEVICE}\nstay {DEVICE}\n".encode())
    assert talk.received() == b"welcome\n" * 2
    assert not talk.closed
    assert (stage(talk), list(talk.protocol.device_ids)) == (Stage.WAITING, [DEVICE])


def test_entries_of_a_waiting_device_are_discarded_without_an_ack(waiting: LineTalk) -> None:
    waiting.send(b"records A B\nalarm C\nnote D\n")
    assert waiting.received() == b""
    assert not waiting.gateway.published
    assert waiting.gateway.tally.not_served == 3
    assert waiting.protocol.figures().records == 0
    assert not waiting.closed


def test_replies_are_written_to_a_waiting_device(waiting: LineTalk) -> None:
    waiting.send(b"time\n")
    waiting.send(b"status A\n")
    waiting.send(b"beat\n")
    assert waiting.received() == b"time\nbeat\nbeat\n"
    assert not waiting.gateway.published


def test_waiting_device_is_served_without_a_new_login(waiting: LineTalk) -> None:
    waiting.send(b"records A\n")
    waiting.protocol.serve(DEVICE)
    waiting.send(b"records B\n")
    waiting.confirm()
    assert waiting.received() == b"1\n"
    assert published(waiting) == ["B"]
    assert stage(waiting) is Stage.SERVING


def test_command_is_written_only_once_a_waiting_device_is_served(waiting: LineTalk) -> None:
    results = request_slot(waiting)
    waiting.clock.advance(SETTLE_TIME)
    waiting.send(b".\n")
    assert results == []
    waiting.protocol.serve(DEVICE)
    assert results == ["written"]


def test_withdrawn_device_waits_if_it_may_stay(talk: LineTalk) -> None:
    talk.send(f"stay {DEVICE}\nrecords A\n".encode())
    assert talk.protocol.withdraw(DEVICE)
    talk.confirm()
    assert talk.received() == b"welcome\n1\n"
    talk.send(b"records B\n")
    assert published(talk) == ["A"]
    assert (stage(talk), talk.closed) == (Stage.WAITING, False)


def test_withdrawn_device_that_may_not_stay_is_disconnected(online: LineTalk) -> None:
    assert not online.protocol.withdraw(DEVICE)
    assert online.closed


def test_unread_messages_of_a_waiting_device_are_not_published(waiting: LineTalk) -> None:
    waiting.protocol.dataReceived(b"time\nnote A\n")  # the reply holds the note
    waiting.lose()
    assert not waiting.gateway.published


def test_silent_waiting_device_is_disconnected(waiting: LineTalk) -> None:
    waiting.clock.advance(waiting.limits.login_timeout)
    assert not waiting.closed
    waiting.clock.advance(waiting.limits.idle_timeout)
    assert waiting.closed
    assert waiting.gateway.kinds == [Rejection.IDLE]
    assert waiting.timers == 0


def test_waiting_connection_retires_at_once(waiting: LineTalk) -> None:
    waiting.protocol.retire()
    assert waiting.closed


def test_connection_is_alive_until_its_idle_timeout_or_its_end() -> None:
    talk = LineTalk(lingers=True)
    talk.send(f"login {DEVICE}\n".encode())
    assert talk.protocol.is_alive()
    talk.protocol.close()
    assert not talk.protocol.is_alive()
    talk = LineTalk()
    talk.send(f"login {DEVICE}\nrecords A\n".encode())
    talk.clock.advance(talk.limits.idle_timeout - 0.1)
    assert talk.protocol.is_alive()
    talk.clock.advance(0.1)
    assert not talk.protocol.is_alive()


# Shared connections.


def test_each_device_of_a_shared_connection_logs_in_once(shared: LineTalk) -> None:
    shared.send(f"share {DEVICE}\n".encode())
    assert shared.received() == b"welcome\n"
    assert [event[1] for event in shared.events_of("login")] == [DEVICE, OTHER]
    assert list(shared.protocol.device_ids) == [DEVICE, OTHER]
    assert shared.protocol.device_id == DEVICE


@pytest.mark.parametrize(("first", "second"), [("share", "stay"), ("stay", "share")])
def test_connection_is_shared_only_if_both_logins_allow_it(
    talk: LineTalk, first: str, second: str
) -> None:
    talk.send(f"{first} {DEVICE}\n{second} {OTHER}\n".encode())
    assert (talk.reason, talk.gateway.kinds) == (OTHER_DEVICE, [Rejection.LOGIN])
    assert talk.closed


def test_refused_device_does_not_affect_others_on_a_shared_connection(talk: LineTalk) -> None:
    talk.gateway.admissions[OTHER] = Admission.REFUSED
    talk.send(f"share {DEVICE}\nshare {OTHER}\nrecords A\nshare {DEVICE}\n".encode())
    talk.send(b"records B\n")
    talk.confirm()
    assert talk.received() == b"welcome\nwelcome\n1\n"  # the login of the first device twice
    assert published(talk) == ["B"]
    assert talk.gateway.tally.not_served == 1
    assert (stage(talk), talk.closed) == (Stage.SERVING, False)


def test_refused_device_that_comes_first_does_not_close_a_shared_connection(
    talk: LineTalk,
) -> None:
    talk.gateway.admissions[DEVICE] = Admission.REFUSED
    talk.send(f"share {DEVICE}\nrecords A\nshare {OTHER}\nrecords B\n".encode())
    assert published(talk) == ["B"]
    assert talk.received() == b"welcome\n"


def test_device_that_cannot_join_a_shared_connection_is_discarded(talk: LineTalk) -> None:
    talk.gateway.login = (  # type: ignore[method-assign]
        lambda connection, device_id: Admission.SERVED if device_id == DEVICE else Admission.LATER
    )
    talk.send(f"share {DEVICE}\nshare {OTHER}\nrecords A\nshare {DEVICE}\nrecords B\n".encode())
    assert published(talk) == ["B"]
    assert list(talk.protocol.device_ids) == [DEVICE]


def test_command_answer_is_from_the_device_of_the_latest_login(shared: LineTalk) -> None:
    answering: list[str | None] = []
    shared.gateway.command_answered = (  # type: ignore[method-assign]
        lambda connection, answer: answering.append(connection.device_id)
    )
    shared.send(f"answer A\nshare {DEVICE}\n".encode())
    shared.send(b"answer B\n")
    assert answering == [OTHER, DEVICE]


def test_commands_to_several_devices_are_written_on_a_shared_connection(shared: LineTalk) -> None:
    first, second = request_slot(shared), request_slot(shared)
    shared.clock.advance(SETTLE_TIME)
    assert (first, second) == (["written"], ["written"])
    shared.send(b"records A\n")
    first, second = request_slot(shared), request_slot(shared)
    assert (first, second) == ([], [])
    shared.protocol.close()
    assert (first, second) == ([ConnectionEnded], [ConnectionEnded])


def test_device_that_logs_out_leaves_a_shared_connection_to_the_others(shared: LineTalk) -> None:
    shared.protocol.log_out(OTHER)
    assert (list(shared.protocol.device_ids), shared.closed) == ([DEVICE], False)
    shared.send(f"share {OTHER}\n".encode())  # it comes back
    assert [event[1] for event in shared.events_of("login")] == [DEVICE, OTHER, OTHER]
    shared.protocol.log_out(OTHER)
    shared.protocol.log_out(DEVICE)
    assert shared.closed


def test_connection_waits_once_its_last_served_device_has_left(talk: LineTalk) -> None:
    talk.gateway.admissions[OTHER] = Admission.REFUSED
    talk.send(f"share {DEVICE}\nshare {OTHER}\n".encode())
    talk.protocol.log_out(DEVICE)
    assert stage(talk) is Stage.WAITING


def test_unread_messages_are_published_only_for_served_devices(talk: LineTalk) -> None:
    talk.gateway.admissions[OTHER] = Admission.REFUSED
    talk.send(f"share {DEVICE}\nrecords A\n".encode())
    talk.protocol.dataReceived(f"visit {OTHER} B\nvisit {DEVICE} C\nvisit device-3 D\n".encode())
    talk.lose()
    assert published(talk) == ["A", "C", "D"]


def test_number_of_devices_on_a_connection_is_limited(
    talk: LineTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_DEVICES == 1000
    monkeypatch.setattr(steps, "MAX_DEVICES", 3)
    for number in range(3):
        talk.send(f"share d{number}\n".encode())
    assert not talk.closed
    talk.send(b"share d3\n")
    assert talk.closed
    assert talk.gateway.kinds == [Rejection.LOGIN]


def test_observer_is_shown_the_traffic_of_a_waiting_device(waiting: LineTalk) -> None:
    events: list[tuple[Traffic, bytes]] = []
    waiting.protocol.observe(lambda *what: events.append(what))
    waiting.send(b"records A\n")
    waiting.send(b"time\n")
    assert events == [
        (Traffic.RECEIVED, b"records A\n"),
        (Traffic.RECEIVED, b"time\n"),
        (Traffic.SENT, b"time\n"),
    ]
