"""The datagram port that all vendors share, with devices that send lines of text."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.vendors.posts import ADDRESS, DEVICE, ELSEWHERE, Port, post
from tracker.interfaces import Admission, IPeer, NotAppended, Rejection
from tracker.limits import Limits
from tracker.vendors import datagram as datagram_port
from tracker.vendors.datagram import REPEAT_WINDOW


@pytest.fixture
def port() -> Port:
    return Port()


# Replies.


def test_an_answer_leaves_only_after_the_confirmation(port: Port) -> None:
    port.receive(post())
    ((entries, _),) = port.gateway.published
    assert [(entry.device_id, entry.payload) for entry in entries] == [(DEVICE, "A"), (DEVICE, "B")]
    assert port.answers() == []
    port.clock.advance(5)
    assert port.answers() == []
    port.confirm()
    assert port.answers() == [(b"5 2", ADDRESS)]


def test_answers_go_to_whom_each_datagram_came_from(port: Port) -> None:
    port.receive(post(1))
    port.receive(post(2), ELSEWHERE)
    port.confirm(1)
    port.confirm(0)
    assert port.answers() == [(b"2 2", ELSEWHERE), (b"1 2", ADDRESS)]


@pytest.mark.parametrize("error", [NotAppended("stopping"), CancelledError()])
def test_what_is_not_confirmed_is_not_answered_and_forgotten(port: Port, error: Exception) -> None:
    port.receive(post())
    port.gateway.published[0][1].errback(error)
    assert port.answers() == []
    port.receive(post())
    assert port.published == 2
    port.confirm()
    assert port.answers() == [(b"5 2", ADDRESS)]


def test_nothing_is_answered_once_the_port_is_closed(port: Port) -> None:
    port.receive(post())
    port.protocol.transport = None  # as stopListening leaves it
    port.confirm()
    assert port.answers() == []


def test_bytes_are_counted_both_ways(port: Port) -> None:
    port.receive(post())
    port.confirm()
    port.receive(post())
    assert port.gateway.tally.bytes_received == 2 * len(post())
    assert port.gateway.tally.bytes_sent == 2 * len(b"5 2")


# Repetitions.


def test_a_repetition_before_the_confirmation_is_answered_along_with_it(port: Port) -> None:
    for _ in range(3):
        port.receive(post())
        port.clock.advance(5)
    assert port.published == 1
    assert port.answers() == []
    port.confirm()
    assert port.answers() == [(b"5 2", ADDRESS)]
    assert port.gateway.tally.repeated == 2


def test_a_repetition_after_the_confirmation_is_answered_again_and_not_published(
    port: Port,
) -> None:
    port.receive(post())
    port.confirm()
    port.receive(post(), ELSEWHERE)  # behind a new address of its carrier
    assert port.published == 1
    assert port.answers() == [(b"5 2", ADDRESS), (b"5 2", ELSEWHERE)]
    assert port.gateway.tally.repeated == 1


@pytest.mark.parametrize("other", [post(6), post(5, "A C"), post(device="device-2")])
def test_what_differs_in_anything_is_no_repetition(port: Port, other: bytes) -> None:
    port.receive(post())
    port.receive(other)
    assert port.published == 2


def test_a_repetition_is_recognised_for_a_while_only(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(post())
    port.clock.advance(REPEAT_WINDOW - 0.1)
    port.receive(post())
    assert port.published == 1
    port.clock.advance(0.1)
    port.receive(post())
    assert port.published == 2
    assert len(port.answers()) == 3
    assert port.remembered == 1


def test_a_datagram_under_way_is_not_forgotten(port: Port) -> None:
    port.receive(post())
    port.clock.advance(REPEAT_WINDOW + 1)
    port.receive(post())
    assert port.published == 1
    port.confirm()
    assert len(port.answers()) == 1
    port.clock.advance(REPEAT_WINDOW - 1)  # from the confirmation on
    port.receive(post())
    assert port.published == 1
    assert len(port.answers()) == 1
    port.clock.advance(2)
    port.receive(post())
    assert port.published == 2


def test_what_is_out_of_the_window_takes_no_memory(port: Port) -> None:
    port.gateway.confirms_immediately = True
    for number in range(100):
        port.receive(post(number))
    port.clock.advance(REPEAT_WINDOW)
    port.receive(post(200))
    assert port.remembered == 1


def test_only_so_many_datagrams_are_remembered(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_port, "MAX_REMEMBERED_DATAGRAMS", 10)
    port.gateway.confirms_immediately = True
    for number in range(50):
        port.receive(post(number))
        assert port.remembered <= 10
    port.receive(post(49))
    assert port.published == 50  # the newest ones are those that are known
    port.receive(post(0))
    assert port.published == 51


# Limits and rejections.


def test_only_so_many_datagrams_are_under_way() -> None:
    port = Port(Limits(datagrams_under_way=3))
    for number in range(5):
        port.receive(post(number))
    assert port.published == 3
    assert port.remembered == 3
    assert port.gateway.tally.dropped == 2
    port.confirm(0)
    port.receive(post(3))  # the device repeats what was dropped
    port.receive(post(4))
    assert port.published == 4
    port.gateway.published[1][1].errback(NotAppended("stopping"))
    port.receive(post(4))
    assert port.published == 5
    for number in (2, 3, 4):
        port.confirm(number)
    assert [answer for answer, _ in port.answers()] == [b"0 2", b"2 2", b"3 2", b"4 2"]


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_a_device_that_is_not_served_gets_no_answer(port: Port, admission: Admission) -> None:
    port.gateway.admissions[DEVICE] = admission
    port.receive(post())
    assert port.published == 0
    assert port.answers() == []
    assert port.gateway.tally.not_served == 1
    port.gateway.admissions.clear()
    port.receive(post())
    assert port.published == 1


def test_a_known_datagram_is_not_answered_once_its_device_is_not_served(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(post())
    port.answers()
    port.gateway.admissions[DEVICE] = Admission.REFUSED
    port.receive(post())
    assert port.answers() == []


@pytest.mark.parametrize(("spare", "accepted"), [(0, True), (-1, False)])
def test_the_content_of_a_datagram_is_limited(spare: int, accepted: bool) -> None:
    records = "A " * 40
    port = Port(Limits(frame_bytes=len(records) + spare))
    port.receive(post(records=records))
    assert port.published == accepted
    assert port.gateway.kinds == ([] if accepted else [Rejection.LENGTH])


def test_a_rejection_names_the_sender(port: Port) -> None:
    peers: list[tuple[str, str | None]] = []

    def rejected(peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        peers.append((peer.peer, peer.device_id))

    port.gateway.rejected = rejected  # type: ignore[method-assign]
    port.receive(b"")
    port.receive(post(records="wrong"))
    assert peers == [("udp 192.0.2.7:40001", None), ("udp 192.0.2.7:40001", DEVICE)]


def test_a_datagram_with_a_mistake_is_dropped(port: Port) -> None:
    port.receive(b"nonsense")
    port.receive(post(records="A wrong"))
    assert port.gateway.kinds == [Rejection.LENGTH, Rejection.CONTENT]
    assert port.published == 0
    assert port.remembered == 0
    assert port.answers() == []


def test_a_notice_is_passed_on(port: Port) -> None:
    port.receive(post(records="odd"))
    assert ("noticed", "odd") in port.gateway.events
    assert port.published == 1
