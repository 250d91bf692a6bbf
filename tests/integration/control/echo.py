"""A control port that only echoes, and who asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.waiting import until
from tracker.control.access import Unidentified, identify_peer
from tracker.control.addresses import server_endpoint


@implementer(IHandshakeListener)
class Echo(Protocol):
    """Sends back what it is sent, and notes what happens to it."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.peer: Any = None

    def connectionMade(self) -> None:
        if not hasattr(self.transport, "getPeerCertificate"):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        try:
            self.peer = identify_peer(self.transport)
        except Unidentified as reason:
            self.happened.append(f"unidentified: {reason}")
            transport: Any = self.transport
            transport.abortConnection()
        else:
            self.happened.append(f"peer {self.peer}")

    def dataReceived(self, data: bytes) -> None:
        assert self.peer is not None
        self.happened.append(f"data {data.decode('ascii', 'replace')}")
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.happened.append("lost")


class Server:
    """A port that echoes."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.protocols: list[Echo] = []
        self._ports: list[Any] = []

    def build(self) -> Echo:
        self.protocols.append(Echo(self.happened))
        return self.protocols[-1]

    async def listen(self, description: str) -> Any:
        from twisted.internet import reactor

        factory: Any = Factory.forProtocol(self.build)
        factory.noisy = False
        port = await server_endpoint(reactor, description).listen(factory)
        self._ports.append(port)
        return port

    async def tls(self, folder: Path, rest: str = "") -> int:
        port = await self.listen(
            f"ssl:0:privateKey={folder}/server.key:certKey={folder}/server.pem"
            f":clientCA={folder}/ca.pem{rest}"
        )
        return int(port.getHost().port)

    async def close(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)  # it may have been stopped already
        await until(lambda: self.happened.count("lost") == len(self.protocols), "all gone")


class Asking(Protocol):
    """Sends something, and fires with what comes back, or with why nothing does."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.message)

    def dataReceived(self, data: bytes) -> None:
        if not self.answer.called:
            self.answer.callback(data)
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


async def ask(endpoint: Any, message: bytes = b"hello") -> bytes:
    """What comes back."""
    factory = Factory.forProtocol(lambda: Asking(message))
    asking = await endpoint.connect(factory)
    answer: bytes = await asking.answer
    return answer
