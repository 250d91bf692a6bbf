"""The control port's side of each connection: who is there, and what goes back and forth.

Who has not said Hello is answered nothing else, and not for long. A client that does not
read is not read either: its events are dropped and counted, and in the end it is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker import __version__
from tracker.control.access import ControlRole, Peer, Roles, Unidentified, peer_name
from tracker.control.boxes import BoxProtocol, Locator
from tracker.control.commands import (
    VERSION,
    BadArgument,
    ControlCommand,
    Event,
    Hello,
    NotPermitted,
    Unwatch,
    VersionMismatch,
    Watch,
)
from tracker.control.commands import NoSuchDevice
from tracker.control.operations import Operations, event
from tracker.endpoints import keep_alive, readable
from tracker.interfaces import IInstance, Observer, Traffic
from tracker.observe.ratelimit import RateLimit

#: Connections at a time.
MOST_CONNECTIONS: Final = 64
#: Seconds to say Hello, the TLS handshake included.
HELLO_TIMEOUT: Final = 10.0
#: Seconds for which a client may leave unread what it was sent.
UNREAD_TIMEOUT: Final = 60.0
#: Commands of a connection that are being answered; then it is not read further.
MOST_UNDER_WAY: Final = 32
#: Devices that a connection may watch.
MOST_WATCHED: Final = 32
#: Lines a minute about who was not let in.
REFUSAL_LINES: Final = 10
#: Characters that a client may call itself.
_MOST_NAME: Final = 64


@implementer(IHandshakeListener, IPushProducer)
class ControlProtocol(BoxProtocol):
    """One connection of a client."""

    _log = Logger()

    def __init__(self, factory: ControlFactory) -> None:
        self.conversation = Conversation(factory, self)
        super().__init__(self.conversation)
        self._factory = factory
        self._clock = factory.clock
        self._hello_due: IDelayedCall | None = None
        self._unread_for: IDelayedCall | None = None
        self._under_way = 0
        self._paused = False

    @property
    def unread(self) -> bool:
        """Whether the client leaves unread what it was sent."""
        return self._unread_for is not None

    def connectionMade(self) -> None:
        """Give it a while to say who it is."""
        keep_alive(self.transport)
        self.transport.registerProducer(self, True)
        self._hello_due = self._clock.callLater(HELLO_TIMEOUT, self._give_up, "no Hello in time")
        if not ISSLTransport.providedBy(self.transport):
            self._identify()

    def handshakeCompleted(self) -> None:
        """See IHandshakeListener."""
        self._identify()

    def _identify(self) -> None:
        try:
            peer = peer_name(self.transport)
        except Unidentified as error:
            self._give_up(str(error))
            return
        role = self._factory.roles.of(peer)
        if role is None:
            self._give_up(f"{peer} has no role")
            return
        self.conversation.identified(peer, role)

    def greeted(self) -> None:
        """It has said Hello."""
        if self._hello_due is not None:
            self._hello_due.cancel()
            self._hello_due = None

    def began(self) -> None:
        """One more command is being answered."""
        self._under_way += 1
        self._pause_or_resume()

    def ended(self) -> None:
        """One was answered."""
        self._under_way -= 1
        self._pause_or_resume()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits for anything any more."""
        self.greeted()
        self._read_again()
        self.conversation.ended()
        self._factory.closed(self)
        super().connectionLost(reason)

    # The transport asks for these when what is written is not taken by the client.

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        if self._unread_for is None:
            self._unread_for = self._clock.callLater(
                UNREAD_TIMEOUT, self._give_up, f"has read nothing for {UNREAD_TIMEOUT:g} s"
            )
        self._pause_or_resume()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._read_again()
        self._pause_or_resume()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    def _read_again(self) -> None:
        if self._unread_for is not None:
            if self._unread_for.active():
                self._unread_for.cancel()
            self._unread_for = None

    def _pause_or_resume(self) -> None:
        pause = self.unread or self._under_way >= MOST_UNDER_WAY
        if pause is not self._paused and self.transport is not None:
            self._paused = pause
            if pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _give_up(self, reason: str) -> None:
        self._factory.refused(readable(self.transport.getPeer()), reason)
        self.transport.abortConnection()


class Conversation(Locator):
    """What a client may ask for, and has asked for: one for each connection."""

    _log = Logger()

    def __init__(self, factory: ControlFactory, protocol: ControlProtocol) -> None:
        self._operations = factory.operations
        self._instance = factory.instance
        self._clock = factory.clock
        self._protocol = protocol
        self._peer: Peer | None = None
        self._role = ControlRole.READ
        self._client = ""
        self._greeted = False
        self._watched: dict[str, _Watched] = {}
        self._waiting: set[Deferred[Any]] = set()

    def identified(self, peer: Peer, role: ControlRole) -> None:
        """It is known who this is."""
        self._peer = peer
        self._role = role

    def ended(self) -> None:
        """The connection has ended."""
        for device_id in list(self._watched):
            self._unwatch(device_id)
        for deferred in list(self._waiting):
            deferred.cancel()

    @property
    def watched(self) -> int:
        """Devices that this client watches."""
        return len(self._watched)

    def answer(
        self, command: type[ControlCommand], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Deferred[Any]:
        """See Locator."""
        self._protocol.began()
        answered = Deferred.fromCoroutine(self._answer(command, function, arguments))
        self._waiting.add(answered)

        def done(result: Any) -> Any:
            self._waiting.discard(answered)
            self._protocol.ended()
            return result

        return answered.addBoth(done)

    async def _answer(
        self, command: type[ControlCommand], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        if self._peer is None or not (self._greeted or command is Hello):
            raise VersionMismatch(f"say Hello first, with version {VERSION}")
        if command.operates:
            allowed = self._role.includes(ControlRole.OPERATE)
            self._log.info(
                "audit: {who}{client} {verb} {command} {arguments}",
                who=str(self._peer),
                client=f" ({self._client})" if self._client else "",
                verb="asks for" if allowed else "may not ask for",
                command=command.commandName.decode(),
                arguments=" ".join(
                    f"{name}={value!r}"
                    for name, value in sorted(arguments.items())
                    # What a device is told may be a secret.
                    if value is not None and name != "text"
                ),
            )
            if not allowed:
                raise NotPermitted("that takes the role operate")
        return await function(self, **arguments)

    @Hello.responder
    async def hello(self, version: int, client: str | None) -> dict[str, Any]:
        """Agree on the version."""
        assert self._peer is not None  # noqa: S101 - looked at before
        if version != VERSION:
            raise VersionMismatch(
                f"this is tracker {__version__}, which speaks version {VERSION} and not {version}: "
                f"{'upgrade the client' if version < VERSION else 'upgrade this instance'}"
            )
        self._greeted = True
        name = (client or "")[:_MOST_NAME]
        self._client = name if name.isprintable() else ascii(name)
        self._protocol.greeted()
        return {
            "version": VERSION,
            "software": __version__,
            "instance_id": self._instance.instance_id,
            "name": str(self._peer)[:256],
            "role": self._role.value,
        }

    @Watch.responder
    async def watch(self, device_id: str) -> dict[str, Any]:
        """Begin to tell."""
        if device_id not in self._watched and len(self._watched) >= MOST_WATCHED:
            raise BadArgument(f"no more than {MOST_WATCHED} devices can be watched at a time")
        if device_id not in self._watched:
            watched = self._watched[device_id] = _Watched(
                device_id, self._instance, self._clock, self._protocol
            )
            watched.begin()
        return {"here": self._instance.connection(device_id) is not None}

    @Unwatch.responder
    async def unwatch(self, device_id: str) -> dict[str, Any]:
        """Tell no more."""
        if device_id not in self._watched:
            raise NoSuchDevice(f"{device_id} is not watched")
        self._unwatch(device_id)
        return {}

    def _unwatch(self, device_id: str) -> None:
        self._watched.pop(device_id).end()


class _Watched:
    """A device that a client watches."""

    def __init__(
        self, device_id: str, instance: IInstance, clock: Any, protocol: ControlProtocol
    ) -> None:
        self._device_id = device_id
        self._instance = instance
        self._clock = clock
        self._protocol = protocol
        self._dropped = 0
        self._observer: Observer = self._observe

    def begin(self) -> None:
        self._instance.watch(self._device_id, self._observer)

    def end(self) -> None:
        self._instance.unwatch(self._device_id, self._observer)

    def _observe(self, kind: Traffic, data: bytes) -> None:
        if self._protocol.unread:
            self._dropped += 1
            return
        arguments = event(self._instance, self._device_id, kind, data)
        self._protocol.dispatcher.callRemote(
            Event, at=self._clock.seconds(), dropped=self._dropped, **arguments
        )
        self._dropped = 0


class ControlFactory(Factory):
    """Builds a :class:`ControlProtocol` for each client, if there is room for one."""

    noisy = False
    _log = Logger()

    def __init__(
        self, clock: Any, instance: IInstance, operations: Operations, roles: Roles
    ) -> None:
        self.clock = clock
        self.instance = instance
        self.operations = operations
        self.roles = roles
        self._protocols: set[ControlProtocol] = set()
        self._refusals = RateLimit(clock, REFUSAL_LINES, 60.0)

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol | None:
        """One more client."""
        if len(self._protocols) >= MOST_CONNECTIONS:
            self.refused(readable(addr), f"there are {MOST_CONNECTIONS} connections already")
            return None
        protocol = ControlProtocol(self)
        self._protocols.add(protocol)
        return protocol

    def closed(self, protocol: ControlProtocol) -> None:
        """One less."""
        self._protocols.discard(protocol)

    def refused(self, peer: str, reason: str) -> None:
        """Tell of a client that was cut off."""
        suppressed = self._refusals.admit()
        if suppressed is not None:
            self._log.warn(
                "control: {peer} was cut off: {reason}{more}",
                peer=peer,
                reason=reason,
                more=f" (and {suppressed} more, not shown)" if suppressed else "",
            )

    @property
    def watchers(self) -> int:
        """Clients that watch a device."""
        return sum(protocol.conversation.watched > 0 for protocol in self._protocols)

    def close_all(self) -> None:
        """End every connection."""
        for protocol in list(self._protocols):
            protocol.transport.loseConnection()
