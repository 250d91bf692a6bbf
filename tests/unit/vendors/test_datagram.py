"""The datagram port that all vendors share, with devices that send lines of text."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.vendors.posts import ADDRESS, DEVICE, OTHER_ADDRESS, Port, post
from tracker.interfaces import Admission, IPeer, NotAppended, Rejection
from tracker.limits import Limits
from tracker.vendors import datagram as datagram_port
from tracker.vendors.datagram import REPEAT_WINDOW


@pytest.fixture
def port() -> Port:
    return Port()


# Replies.


def test_ack_leaves_only_after_the_append(port: Port) -> None:
    port.receive(post())
    ((entries, _),) = port.gateway.published
    assert [(entry.device_id, entry.payload) for entry in entries] == [(DEVICE, "A"), (DEVICE, "B")]
    assert port.acks() == []
    port.clock.advance(5)
    assert port.acks() == []
    port.confirm()
    assert port.acks() == [(b"5 2", ADDRESS)]


def test_each_ack_goes_to_the_source_of_its_datagram(port: Port) -> None:
    port.receive(post(1))
    port.receive(post(2), OTHER_ADDRESS)
    port.confirm(1)
    port.confirm(0)
    assert port.acks() == [(b"2 2", OTHER_ADDRESS), (b"1 2", ADDRESS)]


@pytest.mark.parametrize("error", [NotAppended("stopping"), CancelledError()])
def test_datagram_that_is_not_appended_is_forgotten_without_an_ack(
    port: Port, error: Exception
) -> None:
    port.receive(post())
    port.gateway.published[0][1].errback(error)
    assert port.acks() == []
    port.receive(post())
    assert port.published == 2
    port.confirm()
    assert port.acks() == [(b"5 2", ADDRESS)]


def test_closed_datagram_port_sends_no_ack(port: Port) -> None:
    port.receive(post())
    port.protocol.transport = None  # stopListening has this effect
    port.confirm()
    assert port.acks() == []


def test_received_and_sent_bytes_are_counted(port: Port) -> None:
    port.receive(post())
    port.confirm()
    port.receive(post())
    assert port.gateway.tally.bytes_received == 2 * len(post())
    assert port.gateway.tally.bytes_sent == 2 * len(b"5 2")


# Repetitions.


def test_repetition_before_the_append_gets_one_ack_with_the_first(port: Port) -> None:
    for _ in range(3):
        port.receive(post())
        port.clock.advance(5)
    assert port.published == 1
    assert port.acks() == []
    port.confirm()
    assert port.acks() == [(b"5 2", ADDRESS)]
    assert port.gateway.tally.repeated == 2


def test_repetition_after_the_append_gets_an_ack_and_is_not_published(
    port: Port,
) -> None:
    port.receive(post())
    port.confirm()
    port.receive(post(), OTHER_ADDRESS)  # from a new address of its carrier's NAT
    assert port.published == 1
    assert port.acks() == [(b"5 2", ADDRESS), (b"5 2", OTHER_ADDRESS)]
    assert port.gateway.tally.repeated == 1


@pytest.mark.parametrize("other", [post(6), post(5, "A C"), post(device="device-2")])
def test_datagram_that_differs_is_not_a_repetition(port: Port, other: bytes) -> None:
    port.receive(post())
    port.receive(other)
    assert port.published == 2


def test_repetition_is_recognised_within_a_time_window(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(post())
    port.clock.advance(REPEAT_WINDOW - 0.1)
    port.receive(post())
    assert port.published == 1
    port.clock.advance(0.1)
    port.receive(post())
    assert port.published == 2
    assert len(port.acks()) == 3
    assert port.remembered == 1


def test_datagram_under_way_is_not_forgotten(port: Port) -> None:
    port.receive(post())
    port.clock.advance(REPEAT_WINDOW + 1)
    port.receive(post())
    assert port.published == 1
    port.confirm()
    assert len(port.acks()) == 1
    port.clock.advance(REPEAT_WINDOW - 1)  # since the append
    port.receive(post())
    assert port.published == 1
    assert len(port.acks()) == 1
    port.clock.advance(2)
    port.receive(post())
    assert port.published == 2


def test_datagrams_outside_of_the_window_are_forgotten(port: Port) -> None:
    port.gateway.confirms_immediately = True
    for number in range(100):
        port.receive(post(number))
    port.clock.advance(REPEAT_WINDOW)
    port.receive(post(200))
    assert port.remembered == 1


def test_number_of_remembered_datagrams_is_limited(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram_port, "MAX_REMEMBERED_DATAGRAMS", 10)
    port.gateway.confirms_immediately = True
    for number in range(50):
        port.receive(post(number))
        assert port.remembered <= 10
    port.receive(post(49))
    assert port.published == 50  # the newest ones are remembered
    port.receive(post(0))
    assert port.published == 51


# Limits and rejections.


def test_number_of_datagrams_under_way_is_limited() -> None:
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
    assert [answer for answer, _ in port.acks()] == [b"0 2", b"2 2", b"3 2", b"4 2"]


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_datagram_of_a_device_that_is_not_served_gets_no_ack(
    port: Port, admission: Admission
) -> None:
    port.gateway.admissions[DEVICE] = admission
    port.receive(post())
    assert port.published == 0
    assert port.acks() == []
    assert port.gateway.tally.not_served == 1
    port.gateway.admissions.clear()
    port.receive(post())
    assert port.published == 1


def test_repetition_of_a_device_that_is_not_served_gets_no_ack(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(post())
    port.acks()
    port.gateway.admissions[DEVICE] = Admission.REFUSED
    port.receive(post())
    assert port.acks() == []


@pytest.mark.parametrize(("spare", "accepted"), [(0, True), (-1, False)])
def test_datagram_with_content_over_the_limit_is_rejected(spare: int, accepted: bool) -> None:
    records = "A " * 40
    port = Port(Limits(frame_bytes=len(records) + spare))
    port.receive(post(records=records))
    assert port.published == accepted
    assert port.gateway.kinds == ([] if accepted else [Rejection.LENGTH])


def test_rejection_names_the_sender(port: Port) -> None:
    peers: list[tuple[str, str | None]] = []

    def rejected(peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        peers.append((peer.peer, peer.device_id))

    port.gateway.rejected = rejected  # type: ignore[method-assign]
    port.receive(b"")
    port.receive(post(records="wrong"))
    assert peers == [("udp 192.0.2.7:40001", None), ("udp 192.0.2.7:40001", DEVICE)]


def test_invalid_datagram_gets_no_ack_and_is_not_published(port: Port) -> None:
    port.receive(b"nonsense")
    port.receive(post(records="A wrong"))
    assert port.gateway.kinds == [Rejection.LENGTH, Rejection.CONTENT]
    assert port.published == 0
    assert port.remembered == 0
    assert port.acks() == []


def test_notice_about_a_datagram_is_passed_to_the_gateway(port: Port) -> None:
    port.receive(post(records="odd"))
    assert ("noticed", "odd") in port.gateway.events
    assert port.published == 1
