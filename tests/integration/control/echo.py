"""A control port that echoes, and its client."""

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
    """Sends received bytes back, and records its events."""

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
    """A control port that echoes."""

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
            await maybeDeferred(port.stopListening)  # the test may have stopped it
        await until(lambda: self.happened.count("lost") == len(self.protocols), "all gone")


class EchoClient(Protocol):
    """Sends bytes; ``reply`` fires with the bytes that are sent back, or with an error."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.reply: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.message)

    def dataReceived(self, data: bytes) -> None:
        if not self.reply.called:
            self.reply.callback(data)
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.reply.called:
            self.reply.errback(reason)


async def ask(endpoint: Any, message: bytes = b"hello") -> bytes:
    """Send bytes to an echoing control port; return the bytes that are sent back."""
    factory = Factory.forProtocol(lambda: EchoClient(message))
    client = await endpoint.connect(factory)
    reply: bytes = await client.reply
    return reply
