"""Datagrams over a budget of work, which are dropped without an ACK and counted."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.unit.vendors.posts import ADDRESS, OTHER_ADDRESS, Port, post
from tracker.limits import Limits
from tracker.vendors.gate import MAX_DATAGRAMS_PER_TURN

OTHER = "device-2"


class SlowWork(Clock):
    """A clock that advances at each reading."""

    step = 0.0

    def seconds(self) -> float:
        self.rightNow += self.step
        return self.rightNow


def slow_port(spare_work: float) -> Port:
    made = Port(Limits(peer_work=0.01, spare_work=spare_work))
    made.gateway.confirms_immediately = True
    made.clock.advance(1000)
    return made


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Port:
    monkeypatch.setattr("tests.unit.vendors.posts.Clock", SlowWork)
    return slow_port(0.1)


def flood(port: Port, address: tuple[str, int] = ADDRESS, data: bytes = b"garbage") -> None:
    """Receive 20 datagrams that take 2 ms of work each, then 20 that take none."""
    clock: Any = port.clock
    for number in range(40):
        clock.step = 0.002 if number < 20 else 0.0
        port.receive(data, address)
    clock.step = 0.0


def over_budget(port: Port) -> dict[str, int]:
    return dict(port.gateway.tally.over_budget)


def test_datagram_of_a_source_over_its_budget_is_dropped(port: Port) -> None:
    port = slow_port(1)
    flood(port)
    rejected = len(port.reasons)
    assert over_budget(port)["source"] > 0
    port.receive(post())
    assert port.acks() == []
    assert len(port.reasons) == rejected
    port.clock.advance(10)
    port.receive(post())
    assert len(port.acks()) == 1


def test_flood_does_not_affect_a_known_source(port: Port) -> None:
    port.receive(post())
    for number in range(20):
        flood(port, ("198.51.100.1", number))
    assert over_budget(port)["unknown_sources"] > 0
    port.receive(post(2))
    assert len(port.acks()) == 2
    port.receive(post(3, device=OTHER), OTHER_ADDRESS)
    assert len(port.acks()) == 0
    port.clock.advance(1)
    port.receive(post(3, device=OTHER), OTHER_ADDRESS)
    assert len(port.acks()) == 1


def test_datagram_of_a_device_over_its_budget_is_dropped(port: Port) -> None:
    sources = [("192.0.2.1", number) for number in range(40)]
    for number, source in enumerate(sources):  # each is known as the source of another device
        port.receive(post(number, device=f"other-{number}"), source)
    clock: Any = port.clock
    clock.step = 0.002
    for number in range(200):
        port.receive(post(100 + number), sources[number % 40])
    clock.step = 0.0
    assert over_budget(port)["device"] > 0
    port.acks()
    port.receive(post(1000), sources[0])
    assert port.acks() == []
    port.receive(post(1000, device=OTHER), sources[0])
    assert len(port.acks()) == 1


def test_port_yields_after_a_number_of_datagrams(port: Port) -> None:
    transport: Any = port.transport
    transport.maxThroughput = 1
    for _ in range(MAX_DATAGRAMS_PER_TURN - 1):
        port.receive(b"")
    assert transport.maxThroughput == 1
    port.receive(b"")
    assert transport.maxThroughput == 0
    port.clock.advance(0)
    assert transport.maxThroughput > 0
    assert not port.clock.getDelayedCalls()


def test_closed_port_is_not_read_again(port: Port) -> None:
    for _ in range(MAX_DATAGRAMS_PER_TURN):
        port.receive(b"")
    port.protocol.stopProtocol()
    port.clock.advance(0)
