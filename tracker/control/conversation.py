"""What one client of a control port may ask for, and has asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols import amp
from zope.interface import Attribute, Interface

from tracker import __version__
from tracker.control.access import ControlRole, Peer, Roles
from tracker.control.commands import (
    MOST_NAME,
    VERSION,
    BadArgument,
    CommandStatus,
    ControlCommand,
    Drain,
    DropConnection,
    Event,
    GetDevice,
    Hello,
    Info,
    Lag,
    ListConnections,
    ListRegistry,
    NoSuchDevice,
    NotPermitted,
    SendCommand,
    SetLogLevel,
    Unwatch,
    VersionMismatch,
    Watch,
    brief,
)
from tracker.control.operations import Operations, event
from tracker.control.wire import Locator
from tracker.interfaces import IInstance, Traffic
from tracker.observe.levels import AUDIT
from tracker.observe.ratelimit import LimitedLog

#: Devices that a client may watch.
MOST_WATCHED: Final = 32


class IClient(Interface):
    """The connection of a client, as its conversation sees it."""

    dispatcher: amp.BoxDispatcher = Attribute("Sends commands to the client.")
    unread: bool = Attribute("Whether the client leaves unread what it was sent.")

    def greeted() -> None:
        """It has said Hello."""

    def began() -> None:
        """One more command is being answered."""

    def ended() -> None:
        """One was answered."""

    def give_up(reason: str) -> None:  # noqa: N805 - an interface's methods have no self
        """Cut the client off."""


class Conversation(Locator):
    """What a client may ask for, and has asked for: one for each connection."""

    def __init__(
        self, clock: Any, instance: IInstance, operations: Operations, client: IClient
    ) -> None:
        self._operations = operations
        self._instance = instance
        self._clock = clock
        self._protocol = client
        self._peer: Peer | None = None
        self._roles: Roles | None = None
        self._client = ""
        self._greeted = False
        self._watched: dict[str, _Watched] = {}
        self._waiting: set[Deferred[Any]] = set()
        # Of a class, a logger would take the class's name for its own.
        self._audit = Logger(AUDIT)
        self._denials = LimitedLog(clock, self._audit)

    def identified(self, peer: Peer, roles: Roles) -> None:
        """It is known who this is; what they may do, the roles say anew for each command."""
        self._peer = peer
        self._roles = roles

    def ended(self) -> None:
        """The connection has ended."""
        for device_id in list(self._watched):
            self._unwatch(device_id)
        for deferred in list(self._waiting):
            deferred.cancel()

    @property
    def peer(self) -> Peer | None:
        """Who this is, once that is known."""
        return self._peer

    @property
    def _role(self) -> ControlRole | None:
        if self._peer is None or self._roles is None:
            return None
        return self._roles.of(self._peer)

    @property
    def watched(self) -> int:
        """Devices that this client watches."""
        return len(self._watched)

    def check(self, command: type[amp.Command] | None) -> None:
        """See Locator."""
        if self._peer is None or not (self._greeted or command is Hello):
            raise VersionMismatch(f"say Hello first, with version {VERSION}")
        if not self._still_served():
            raise NotPermitted("that takes a role")

    def _still_served(self) -> bool:
        """Whether it has a role; if it has none any more, it is cut off."""
        if self._role is None:
            self._protocol.give_up(f"{self._peer} has no role any more")
            return False
        return True

    def answer(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
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
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        if issubclass(command, ControlCommand) and command.operates:
            role = self._role
            allowed = role is not None and role.includes(ControlRole.OPERATE)
            self._tell(command, arguments, allowed)
            if not allowed:
                raise NotPermitted("that takes the role operate")
        return await function(self, **arguments)

    def _tell(
        self, command: type[ControlCommand], arguments: dict[str, Any], allowed: bool
    ) -> None:
        """Tell in the log who has asked for what: all that is done, and some of what is not."""
        log = self._audit.info if allowed else self._denials.info
        log(
            "audit: {who}{client} {verb} {command} {arguments}",
            who=str(self._peer),
            client=f" ({self._client})" if self._client else "",
            verb="asks for" if allowed else "may not ask for",
            command=command.commandName.decode(),
            arguments=" ".join(
                f"{name}={brief(repr(value), MOST_NAME)}"
                for name, value in sorted(arguments.items())
                # What a device is told may be a secret.
                if value is not None and name != "text"
            ),
        )

    @Hello.responder
    async def hello(self, version: int, client: str | None) -> dict[str, Any]:
        """Agree on the version."""
        role = self._role
        assert self._peer is not None and role is not None  # noqa: S101, PT018 - looked at before
        if version != VERSION:
            raise VersionMismatch(
                f"this is tracker {__version__}, which speaks version {VERSION} and not "
                f"{brief(str(version), 16)}: upgrade "
                f"{'the client' if version < VERSION else 'this instance'}"
            )
        self._greeted = True
        name = (client or "")[:MOST_NAME]
        self._client = name if name.isprintable() else ascii(name)
        self._protocol.greeted()
        return {
            "version": VERSION,
            "software": __version__,
            "instance_id": self._instance.instance_id,
            "name": brief(str(self._peer)),
            "role": role.value,
        }

    @Watch.responder
    async def watch(self, device_id: str) -> dict[str, Any]:
        """Begin to tell."""
        if device_id not in self._watched:
            if len(self._watched) >= MOST_WATCHED:
                raise BadArgument(f"no more than {MOST_WATCHED} devices can be watched at a time")
            if not 0 < len(device_id) <= MOST_NAME:
                raise BadArgument(f"device_id: must be 1 to {MOST_NAME} characters long")
            watched = self._watched[device_id] = _Watched(
                device_id, self._instance, self._clock, self._protocol, self._still_served
            )
            watched.begin()
        return {"here": self._instance.connection(device_id) is not None}

    @Unwatch.responder
    async def unwatch(self, device_id: str) -> dict[str, Any]:
        """Tell no more."""
        if device_id not in self._watched:
            raise NoSuchDevice(f"{brief(device_id, MOST_NAME)} is not watched")
        self._unwatch(device_id)
        return {}

    @Info.responder
    async def info(self) -> dict[str, Any]:
        """See Operations, as all below."""
        return self._operations.info()

    @ListConnections.responder
    async def list_connections(self, **arguments: Any) -> dict[str, Any]:
        """One page."""
        return self._operations.list_connections(**arguments)

    @ListRegistry.responder
    async def list_registry(self, **arguments: Any) -> dict[str, Any]:
        """One page."""
        return await self._operations.list_registry(**arguments)

    @GetDevice.responder
    async def get_device(self, device_id: str) -> dict[str, Any]:
        """One device."""
        return await self._operations.get_device(device_id)

    @SendCommand.responder
    async def send_command(self, **arguments: Any) -> dict[str, Any]:
        """To any device."""
        return await self._operations.send_command(**arguments)

    @CommandStatus.responder
    async def command_status(self, command_id: str, device_id: str | None) -> dict[str, Any]:
        """Of any command."""
        return await self._operations.command_status(command_id, device_id)

    @DropConnection.responder
    async def drop_connection(self, device_id: str) -> dict[str, Any]:
        """One that is here."""
        return self._operations.drop_connection(device_id)

    @Lag.responder
    async def lag(self, **arguments: Any) -> dict[str, Any]:
        """Of all streams, or of some."""
        return await self._operations.lag(**arguments)

    @SetLogLevel.responder
    async def set_log_level(self, level: str, namespace: str | None) -> dict[str, Any]:
        """Of this process."""
        return self._operations.set_log_level(level, namespace)

    @Drain.responder
    async def drain(self, seconds: float) -> dict[str, Any]:
        """All devices that are here."""
        return await self._operations.drain(seconds)

    def _unwatch(self, device_id: str) -> None:
        self._watched.pop(device_id).end()


class _Watched:
    """A device that a client watches."""

    def __init__(
        self,
        device_id: str,
        instance: IInstance,
        clock: Any,
        protocol: IClient,
        still_served: Callable[[], bool],
    ) -> None:
        self._device_id = device_id
        self._instance = instance
        self._clock = clock
        self._protocol = protocol
        self._still_served = still_served
        self._dropped = 0

    def begin(self) -> None:
        self._instance.watch(self._device_id, self._observe)

    def end(self) -> None:
        self._instance.unwatch(self._device_id, self._observe)

    def _observe(self, kind: Traffic, data: bytes) -> None:
        if not self._still_served():
            return
        if self._protocol.unread:
            self._dropped += 1
            return
        arguments = event(self._instance, self._device_id, kind, data)
        self._protocol.dispatcher.callRemote(
            Event, at=self._clock.seconds(), dropped=self._dropped, **arguments
        )
        self._dropped = 0
