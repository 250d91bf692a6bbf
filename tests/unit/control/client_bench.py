"""A client and a control port whose connections the test controls."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump
from zope.interface import implementer

from tests.unit.control.wire import Port, ServerTransport
from tracker.control.access import Permission
from tracker.control.client import ControlClient


def refusal() -> Exception:
    """Return the error of a refused connection."""
    return network.ConnectionRefusedError(errno.ECONNREFUSED, "no")


@implementer(IStreamClientEndpoint)
@define
class Endpoint:
    """An endpoint whose attempts to connect succeed or fail when the test decides."""

    clock: Clock
    port: Port | None = None
    attempts: list[tuple[IProtocolFactory, Deferred[Any]]] = field(factory=list)
    pump: IOPump | None = None
    far: ServerTransport | None = None
    cancelled: int = 0
    cancelling: Callable[[], None] = lambda: None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        def cancel(_: object) -> None:
            self.cancelled += 1
            self.cancelling()

        attempt: Deferred[Any] = Deferred(cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def succeed(self) -> None:
        """Let the current attempt succeed."""
        assert self.port is not None
        factory, attempt = self.attempts.pop(0)
        near: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        server = self.port.build()
        self.far = ServerTransport(server)
        transport = ClientTransport(near)
        server.makeConnection(self.far)
        near.makeConnection(transport)
        self.pump = IOPump(near, server, transport, self.far, False, clock=self.clock)
        attempt.callback(near)
        self.pump.flush()

    def fail(self, error: Exception) -> None:
        """Let the current attempt fail."""
        self.attempts.pop(0)[1].errback(error)

    def lose(self) -> None:
        """Let the instance close the connection."""
        assert self.far is not None
        assert self.pump is not None
        self.far.abortConnection()
        self.pump.flush()


class ClientTransport(FakeTransport):
    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol, False)
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Bench:
    """A client, and the control port that it connects to."""

    def __init__(self, retry: bool = True, permission: Permission = Permission.OPERATE) -> None:
        self.port = Port(permission)
        self.clock = self.port.clock
        self.endpoint = Endpoint(self.clock, self.port)
        self.client = ControlClient(self.clock, self.endpoint, "test", retry)
        self.client.startService()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
        """Start a coroutine; return a list that receives its result or exception."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.flush()
        return results

    def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the immediate result or exception of a coroutine."""
        (result,) = self.begin(coroutine)
        return result

    def flush(self) -> None:
        if self.endpoint.pump is not None:
            self.endpoint.pump.flush()

    def stop(self) -> list[Any]:
        stopped: list[Any] = []
        self.client.stopService().addBoth(stopped.append)
        self.flush()
        return stopped
