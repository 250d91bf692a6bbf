"""A real UDP port, which yields to the reactor during a flood."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.unit.fakes import FakeGateway
from tests.waiting import until
from tracker.limits import Limits
from tracker.net.ports import udp_endpoint
from tracker.vendors.datagram import DatagramPort
from tracker.vendors.gate import MAX_DATAGRAMS_PER_TURN
from tracker.vendors.teltonika.datagram_dialect import TeltonikaDatagramDialect
from tracker.vendors.teltonika.layouts import Layouts

FLOOD = 10 * MAX_DATAGRAMS_PER_TURN


class Counting(DatagramPort):
    """Counts the datagrams of each reactor turn."""

    def __init__(self, gateway: FakeGateway, clock: Any) -> None:
        limits = Limits()
        truncated = gateway.tally.count_truncated
        dialect = TeltonikaDatagramDialect(limits, Layouts(), truncated)
        super().__init__(gateway, limits, clock, dialect)
        self.turn = 0
        self.received: Counter[int] = Counter()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.received[self.turn] += 1
        super().datagramReceived(datagram, addr)


@pytest.mark.parametrize("shared", ["", ":reuseport=1"])
@pytest.mark.parametrize("datagram", [b"", b"x"])
@ensureDeferred
async def test_port_yields_after_a_number_of_datagrams_of_any_size(
    datagram: bytes, shared: str
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    protocol = Counting(FakeGateway(), reactor)
    endpoint = udp_endpoint(reactor, f"udp:0:interface=127.0.0.1{shared}")
    port: Any = await endpoint.listen(protocol)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    read_one_turn = port.doRead

    def count_turn() -> None:
        protocol.turn += 1
        read_one_turn()

    port.doRead = count_turn
    try:
        for _ in range(FLOOD):
            sender.sendto(datagram, ("127.0.0.1", port.getHost().port))
        await until(lambda: protocol.received.total() == FLOOD, "all of the flood is read")
        assert max(protocol.received.values()) <= MAX_DATAGRAMS_PER_TURN
    finally:
        sender.close()
        await port.stopListening()
