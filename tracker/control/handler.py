"""Answer one client of a control port, as far as its permission allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols import amp
from zope.interface import Attribute, Interface

from tracker import __version__
from tracker.control.access import Peer, Permission, Permissions
from tracker.control.commands import (
    MAX_NAME,
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
    ListDeviceRegistry,
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
MAX_WATCHED: Final = 32


class IClient(Interface):
    """The connection of a client, as its conversation uses it."""

    dispatcher: amp.BoxDispatcher = Attribute("Sends commands to the client.")
    unread: bool = Attribute("Whether the client leaves unread what it was sent.")

    def greeted() -> None:
        """Note that the client has said Hello."""

    def began() -> None:
        """Note that a command is being answered."""

    def ended() -> None:
        """Note that a command was answered."""

    def give_up(reason: str) -> None:  # noqa: N805 - an interface's methods have no self
        """Close the connection at once."""


class ClientHandler(Locator):
    """The commands of one connection, their answers, and the devices that it watches."""

    def __init__(
        self, clock: IReactorTime, instance: IInstance, operations: Operations, client: IClient
    ) -> None:
        super().__init__(
            {
                Hello: self._hello,
                Info: operations.info,
                ListConnections: operations.list_connections,
                ListDeviceRegistry: operations.list_device_registry,
                GetDevice: operations.get_device,
                SendCommand: operations.send_command,
                CommandStatus: operations.command_status,
                DropConnection: operations.drop_connection,
                Watch: self._watch,
                Unwatch: self._unwatch,
                Lag: operations.lag,
                SetLogLevel: operations.set_log_level,
                Drain: operations.drain,
            }
        )
        self._instance = instance
        self._clock = clock
        self._protocol = client
        self._caller: _Caller | None = None
        self._greeted = False
        self._watched: dict[str, _Watched] = {}
        self._waiting: set[Deferred[Any]] = set()
        self._audit = _Audit(clock)

    def identified(self, peer: Peer, permissions: Permissions) -> None:
        """Note who the client is. Its permission is looked up again for each command."""
        self._caller = _Caller(peer, permissions)

    def ended(self) -> None:
        """Stop watching, and cancel what is being answered: the connection has ended."""
        while self._watched:
            self._watched.popitem()[1].end()
        for deferred in list(self._waiting):
            deferred.cancel()

    @property
    def peer(self) -> Peer | None:
        """The client, once it is identified."""
        return None if self._caller is None else self._caller.peer

    @property
    def watched(self) -> int:
        """Number of devices that this client watches."""
        return len(self._watched)

    def check(self, command: type[amp.Command] | None) -> None:
        """See Locator."""
        if self._caller is None or not (self._greeted or command is Hello):
            raise VersionMismatch(f"say Hello first, with version {VERSION}")
        if not self._still_served():
            raise NotPermitted("that requires a permission")

    def _still_served(self) -> bool:
        """Return whether the client has a permission; close its connection if not."""
        if self._caller is None or self._caller.permission is None:
            self._protocol.give_up(f"{self.peer} has no permission any more")
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
        caller = self._caller
        if caller is not None and issubclass(command, ControlCommand) and command.operates:
            allowed = caller.permission is Permission.OPERATE
            self._audit.record(caller, command, arguments, allowed)
            if not allowed:
                raise NotPermitted("that requires the permission operate")
        return await maybeDeferred(function, **arguments)

    def _hello(self, version: int, client: str | None) -> dict[str, Any]:
        """Agree on the version."""
        caller = self._caller
        permission = None if caller is None else caller.permission
        assert caller is not None and permission is not None  # noqa: S101, PT018 - checked before
        if version != VERSION:
            raise VersionMismatch(
                f"this is tracker {__version__}, which speaks version {VERSION} and not "
                f"{brief(str(version), 16)}: upgrade "
                f"{'the client' if version < VERSION else 'this instance'}"
            )
        self._greeted = True
        name = (client or "")[:MAX_NAME]
        caller.name = name if name.isprintable() else ascii(name)
        self._protocol.greeted()
        return {
            "version": VERSION,
            "software": __version__,
            "instance_id": self._instance.instance_id,
            "name": brief(str(caller.peer)),
            "permission": permission.value,
        }

    def _watch(self, device_id: str) -> dict[str, Any]:
        """Start sending events of a device."""
        if device_id not in self._watched:
            if len(self._watched) >= MAX_WATCHED:
                raise BadArgument(f"no more than {MAX_WATCHED} devices can be watched at a time")
            if not 0 < len(device_id) <= MAX_NAME:
                raise BadArgument(f"device_id: must be 1 to {MAX_NAME} characters long")
            watched = _Watched(
                device_id=device_id,
                instance=self._instance,
                clock=self._clock,
                protocol=self._protocol,
                still_served=self._still_served,
            )
            self._watched[device_id] = watched
            watched.begin()
        return {"here": self._instance.connection(device_id) is not None}

    def _unwatch(self, device_id: str) -> dict[str, Any]:
        """Stop sending events of a device."""
        if device_id not in self._watched:
            raise NoSuchDevice(f"{brief(device_id, MAX_NAME)} is not watched")
        self._watched.pop(device_id).end()
        return {}


@define
class _Caller:
    """The identified client of a connection."""

    peer: Peer
    permissions: Permissions
    name: str = ""
    """The name that the client has given itself."""

    @property
    def permission(self) -> Permission | None:
        return self.permissions.of(self.peer)


class _Audit:
    """Log who asks for a change: each that is made, and some of those that are denied."""

    def __init__(self, clock: IReactorTime) -> None:
        # Of a class, a logger would take the class's name for its own.
        self._log = Logger(AUDIT)
        self._denials = LimitedLog(clock, self._log)

    def record(
        self,
        caller: _Caller,
        command: type[ControlCommand],
        arguments: dict[str, Any],
        allowed: bool,
    ) -> None:
        log = self._log.info if allowed else self._denials.info
        log(
            "audit: {who}{client} {verb} {command} {arguments}",
            who=str(caller.peer),
            client=f" ({caller.name})" if caller.name else "",
            verb="asks for" if allowed else "may not ask for",
            command=command.commandName.decode(),
            arguments=" ".join(
                f"{name}={brief(repr(value), MAX_NAME)}"
                for name, value in sorted(arguments.items())
                # A command's text may be a secret.
                if value is not None and name != "text"
            ),
        )


@define(eq=False)
class _Watched:
    """A device that a client watches."""

    device_id: str
    instance: IInstance
    clock: IReactorTime
    protocol: IClient
    still_served: Callable[[], bool]
    dropped: int = 0

    def begin(self) -> None:
        self.instance.watch(self.device_id, self._observe)

    def end(self) -> None:
        self.instance.unwatch(self.device_id, self._observe)

    def _observe(self, kind: Traffic, data: bytes) -> None:
        if not self.still_served():
            return
        if self.protocol.unread:
            self.dropped += 1
            return
        arguments = event(self.instance, self.device_id, kind, data)
        self.protocol.dispatcher.callRemote(
            Event, at=self.clock.seconds(), dropped=self.dropped, **arguments
        )
        self.dropped = 0
