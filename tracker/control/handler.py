"""Handling of one client's commands, according to its permission."""

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
from tracker.control.operations import Operations, event_arguments
from tracker.control.wire import Locator
from tracker.interfaces import IInstance, Traffic
from tracker.observe.levels import AUDIT
from tracker.observe.ratelimit import LimitedLog

#: Devices that a client may watch.
MAX_WATCHED: Final = 32


class IClient(Interface):
    """The connection of a client."""

    dispatcher: amp.BoxDispatcher = Attribute("Sends commands to the client.")
    unread: bool = Attribute("True while the client leaves sent bytes unread.")

    def greeted() -> None:
        """Record that the client has sent Hello."""

    def command_started() -> None:
        """Count a command that is being processed."""

    def command_finished() -> None:
        """Count a command that was processed."""

    def abort(reason: str) -> None:  # noqa: N805 - an interface's methods have no self
        """Close the connection at once."""


class ClientHandler(Locator):
    """Handles the commands of one client, and sends events of the devices that it watches."""

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
                SendCommand: self._send_command,
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
        self._operations = operations
        self._clock = clock
        self._client = client
        self._caller: _Caller | None = None
        self._greeted = False
        self._watched: dict[str, _Watched] = {}
        self._in_progress: set[Deferred[Any]] = set()
        self._audit = _Audit(clock)

    def identified(self, peer: Peer, permissions: Permissions) -> None:
        """Set the identity of the client. Each command checks its permission again."""
        self._caller = _Caller(peer, permissions)

    def connection_lost(self) -> None:
        """Stop watching devices, and cancel commands in progress."""
        while self._watched:
            self._watched.popitem()[1].stop()
        for deferred in list(self._in_progress):
            deferred.cancel()

    @property
    def peer(self) -> Peer | None:
        """The client; None until it is identified."""
        return None if self._caller is None else self._caller.peer

    @property
    def watched(self) -> int:
        """Number of devices that this client watches."""
        return len(self._watched)

    def check(self, command: type[amp.Command] | None) -> None:
        """See Locator."""
        if self._caller is None or not (self._greeted or command is Hello):
            raise VersionMismatch(f"Hello with version {VERSION} must be the first command")
        if not self._check_permission():
            raise NotPermitted("this client has no permission")

    def _check_permission(self) -> bool:
        """Return True if the client has a permission; otherwise close its connection."""
        if self._caller is None or self._caller.permission is None:
            self._client.abort(f"the permission of {self.peer} was removed")
            return False
        return True

    def respond(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Deferred[Any]:
        """See Locator."""
        self._client.command_started()
        reply = Deferred.fromCoroutine(self._respond(command, function, arguments))
        self._in_progress.add(reply)

        def done(result: Any) -> Any:
            self._in_progress.discard(reply)
            self._client.command_finished()
            return result

        return reply.addBoth(done)

    async def _respond(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        caller = self._caller
        if caller is not None and issubclass(command, ControlCommand) and command.operates:
            allowed = caller.permission is Permission.OPERATE
            self._audit.record(caller, command, arguments, allowed)
            if not allowed:
                raise NotPermitted('this command requires the permission "operate"')
        return await maybeDeferred(function, **arguments)

    def _hello(self, version: int, client: str | None) -> dict[str, Any]:
        caller = self._caller
        permission = None if caller is None else caller.permission
        assert caller is not None and permission is not None  # noqa: S101, PT018 - see check()
        if version != VERSION:
            raise VersionMismatch(
                f"tracker {__version__} supports version {VERSION} of the protocol, not "
                f"{brief(str(version), 16)}; upgrade "
                f"{'the client' if version < VERSION else 'the instance'}"
            )
        self._greeted = True
        name = (client or "")[:MAX_NAME]
        caller.name = name if name.isprintable() else ascii(name)
        self._client.greeted()
        return {
            "version": VERSION,
            "software": __version__,
            "instance_id": self._instance.instance_id,
            "name": brief(str(caller.peer)),
            "permission": permission.value,
        }

    async def _send_command(self, *, sender: str | None, **arguments: Any) -> dict[str, Any]:
        caller = self._caller
        assert caller is not None  # noqa: S101 - see check()
        return await self._operations.send_command(sender=sender or caller.sender, **arguments)

    def _watch(self, device_id: str) -> dict[str, Any]:
        device_id = self._operations.device_id(device_id)
        if device_id not in self._watched:
            if len(self._watched) >= MAX_WATCHED:
                raise BadArgument(f"at most {MAX_WATCHED} devices can be watched at a time")
            watched = _Watched(
                device_id=device_id,
                instance=self._instance,
                clock=self._clock,
                client=self._client,
                check_permission=self._check_permission,
            )
            self._watched[device_id] = watched
            watched.start()
        return {"here": self._instance.connection(device_id) is not None}

    def _unwatch(self, device_id: str) -> dict[str, Any]:
        device_id = self._operations.device_id(device_id)
        if device_id not in self._watched:
            raise NoSuchDevice(f"{brief(device_id, MAX_NAME)} is not watched")
        self._watched.pop(device_id).stop()
        return {}


@define
class _Caller:
    """The identified client of a connection."""

    peer: Peer
    permissions: Permissions
    name: str = ""
    """The name that the client has sent in Hello."""

    @property
    def permission(self) -> Permission | None:
        return self.permissions.of(self.peer)

    @property
    def sender(self) -> str:
        """Name of the sender of commands that do not name one."""
        # The address of a local client does not identify a sender.
        return self.name or self.peer.name if self.peer.kind == "tcp" else self.peer.name


class _Audit:
    """Logs every permitted command that changes something; lines for denied ones are limited."""

    def __init__(self, clock: IReactorTime) -> None:
        # Not a class attribute, which would log in the namespace of the class.
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
            verb="requested" if allowed else "was denied",
            command=command.commandName.decode(),
            arguments=" ".join(
                f"{name}={brief(repr(value), MAX_NAME)}"
                for name, value in sorted(arguments.items())
                # The content of a command may be a secret.
                if value is not None and name not in ("text", "payload_hex")
            ),
        )


@define(eq=False)
class _Watched:
    """A device that a client watches."""

    device_id: str
    instance: IInstance
    clock: IReactorTime
    client: IClient
    check_permission: Callable[[], bool]
    dropped: int = 0

    def start(self) -> None:
        self.instance.watch(self.device_id, self._observe)

    def stop(self) -> None:
        self.instance.unwatch(self.device_id, self._observe)

    def _observe(self, kind: Traffic, data: bytes) -> None:
        if not self.check_permission():
            return
        if self.client.unread:
            self.dropped += 1
            return
        arguments = event_arguments(self.instance, self.device_id, kind, data)
        self.client.dispatcher.callRemote(
            Event, at=self.clock.seconds(), dropped=self.dropped, **arguments
        )
        self.dropped = 0
