"""A network of control ports without sockets."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import error as network
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, IOPump
from zope.interface import implementer

from tests.unit.control.wire import Port, ServerTransport
from tracker.control import pool
from tracker.control.access import Permission
from tracker.control.addresses import client_endpoint


class ClientTransport(FakeTransport):
    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol, False)

    def abortConnection(self) -> None:
        self.loseConnection()


@define(slots=False)
class Network:
    """Control ports by address; None refuses connections."""

    clock: Clock = field(factory=Clock)
    ports: dict[str, Port | None] = field(factory=dict)
    pumps: dict[str, tuple[IOPump, ServerTransport]] = field(factory=dict)
    attempts: list[str] = field(factory=list)

    def add(self, address: str, permission: Permission = Permission.OPERATE) -> Port:
        """Add a control port that listens at an address."""
        self.ports[address] = port = Port(permission, clock=self.clock)
        return port

    def connect(self, address: str, factory: IProtocolFactory) -> Deferred[Any]:
        self.attempts.append(address)
        port = self.ports.get(address)
        if port is None:
            return fail(network.ConnectionRefusedError(errno.ECONNREFUSED, "no"))
        near: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        server = port.build()
        far, transport = ServerTransport(server), ClientTransport(near)
        server.makeConnection(far)
        near.makeConnection(transport)
        pump = IOPump(near, server, transport, far, False, clock=self.clock)
        self.pumps[address] = pump, far
        return succeed(near)

    def pass_(self, seconds: float = 0) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)
            self.flush()
        self.flush()

    def flush(self) -> None:
        for _ in range(3):  # a reply may cause another command
            for pump, _ in list(self.pumps.values()):
                pump.flush()

    def lose(self, address: str) -> None:
        """Stop the control port at an address."""
        self.ports[address] = None
        pump, far = self.pumps.pop(address)
        far.abortConnection()
        pump.flush()

    def attach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make pools connect to this network."""
        here = self

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            def __init__(self, address: str) -> None:
                self.address = address

            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
                return here.connect(self.address, protocolFactory)

        def endpoint(reactor: object, address: str) -> IStreamClientEndpoint:
            client_endpoint(MemoryReactorClock(), address)  # validates the address
            return Endpoint(address)

        monkeypatch.setattr(pool, "client_endpoint", endpoint)
