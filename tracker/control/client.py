"""A control port from Python: ask an instance, operate it, watch a device.

::

    client = ControlClient(reactor, client_endpoint(reactor, "unix:/run/tracker/control.sock"))
    client.startService()
    async for row in client.connections(prefix="3563"):
        print(row["device_id"], row["address"])
    answer = await client.send_command("356307042441013", "getinfo", wait=True)

The connection is made again whenever it is lost; what was under way then fails, and devices that
are watched are watched again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed  # noqa: A004
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.boxes import BoxProtocol, Locator
from tracker.control.commands import (
    VERSION,
    BadArgument,
    CommandStatus,
    ControlCommand,
    ControlError,
    Drain,
    DropConnection,
    Event,
    GetDevice,
    Hello,
    Info,
    Lag,
    ListConnections,
    ListRegistry,
    SendCommand,
    SetLogLevel,
    Unwatch,
    VersionMismatch,
    Watch,
)
from tracker.endpoints import keep_alive

#: Seconds that an answer is waited for which needs nobody but the instance and Redis.
ANSWER_TIMEOUT: Final = 15.0
#: Seconds within which a connection has to be made and greeted.
GREETING_TIMEOUT: Final = 10.0
#: Seconds until it is tried again: by how often it was tried.
_RETRY: Final = backoffPolicy(0.5, 10.0)


class NotConnected(ControlError):
    """The control port cannot be reached, or the connection was lost; the text says why."""


@frozen
class DeviceEvent:
    """Something has happened on the connection of a device."""

    device_id: str
    at: float
    """Seconds since 1970 (UTC)."""
    kind: str
    """``connected``, ``disconnected``, ``received``, ``sent`` or ``rejected``."""
    raw: bytes
    decoded: str
    """JSON, as ``tracker-admin decode`` shows it."""
    truncated: bool
    """Whether there was too much of it."""
    dropped: int
    """Events before this one that were left out, since they were not read in time."""


Watcher = Callable[[DeviceEvent], None]
#: Told None when the connection is usable, else why it was lost.
Change = Callable[[ControlError | None], None]


class ControlClient(Service):
    """One instance's control port.

    :param endpoint: see :func:`tracker.control.addresses.client_endpoint`.
    :param name: what the instance's log calls this client.
    :param retry: whether a connection is made again that was lost, or could not be made.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, name: str = "", retry: bool = True
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._retry = retry
        self._watchers: dict[str, Watcher] = {}
        self.greeting: dict[str, Any] = {}
        """What the instance has said to Hello, last: ``instance_id``, ``role``, …"""
        self._endpoint = endpoint
        self._changed: Change = lambda reason: None
        self._protocol: _ClientProtocol | None = None
        self._why_not: ControlError = NotConnected("not connected yet")
        self._over = True  # no more attempts are made
        self._waiting: list[Deferred[_ClientProtocol]] = []
        self._attempt: Deferred[Any] | None = None
        self._connecting: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._over = False
        self._connecting = Deferred.fromCoroutine(self._stay_connected())

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done."""
        super().stopService()
        if self._protocol is not None:
            self._protocol.transport.loseConnection()
        if self._attempt is not None:
            self._attempt.cancel()
        return self._connecting

    def when_it_changes(self, changed: Change) -> None:
        """Have somebody told whenever the connection is lost, and when it is back."""
        self._changed = changed

    async def info(self) -> dict[str, Any]:
        """The instance, and how much it holds."""
        return await self._ask(Info)

    async def connections(
        self, prefix: str = "", vendor: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The devices that are connected to the instance, by their ids.

        :param limit: rows that are asked for at once.
        """
        async for row in self._pages(ListConnections, "connections", prefix, vendor, limit):
            yield row

    async def registry(
        self,
        prefix: str = "",
        vendor: str | None = None,
        limit: int | None = None,
        instance_id: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The devices that are connected to any instance, by their ids."""
        pages = self._pages(ListRegistry, "devices", prefix, vendor, limit, instance_id=instance_id)
        async for row in pages:
            yield row

    async def device(self, device_id: str) -> dict[str, Any]:
        """Where a device is, and how it fares there.

        :raises NoSuchDevice: when it is connected nowhere, and nothing waits for it.
        """
        return await self._ask(GetDevice, device_id=device_id)

    async def send_command(
        self, device_id: str, text: str, *, wait: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Send a command to a device, wherever it is.

        :param wait: for its final response, however long that takes.
        :param options: ``command_id``, ``codec``, ``expires_at`` or ``expires_in`` (seconds),
            ``timeout`` (seconds), ``offline`` (``wait`` or ``fail``).
        """
        arguments = {"device_id": device_id, "text": text, "wait": wait, **options}
        return await self._ask_for(SendCommand, None if wait else ANSWER_TIMEOUT, arguments)

    async def command_status(self, command_id: str, device_id: str | None = None) -> dict[str, Any]:
        """What has become of a command.

        :param device_id: helps to find one that nobody has begun with.
        :raises NoSuchCommand: when nothing is known of it.
        """
        return await self._ask(CommandStatus, command_id=command_id, device_id=device_id)

    async def drop_connection(self, device_id: str) -> str:
        """Close the connection of a device to the instance; its address.

        :raises NoSuchDevice: when it is not connected there.
        """
        address: str = (await self._ask(DropConnection, device_id=device_id))["address"]
        return address

    async def watch(self, device_id: str, watcher: Watcher) -> bool:
        """Be told of all that a device says and is told, until :meth:`unwatch`.

        :return: whether it is connected to the instance now.
        """
        self._watchers[device_id] = watcher
        here: bool = (await self._ask(Watch, device_id=device_id))["here"]
        return here

    async def unwatch(self, device_id: str) -> None:
        """Be told no more."""
        self._watchers.pop(device_id, None)
        await self._ask(Unwatch, device_id=device_id)

    async def lag(self, streams: list[str] | None = None) -> list[dict[str, Any]]:
        """How far behind the groups of each stream are, or of some."""
        groups: list[dict[str, Any]] = (await self._ask(Lag, streams=streams))["groups"]
        return groups

    async def set_log_level(self, level: str, namespace: str | None = None) -> str:
        """Log what is of this level or above; what held before."""
        answer = await self._ask(SetLogLevel, level=level, namespace=namespace)
        before: str = answer["before"]
        return before

    async def drain(self, seconds: float) -> dict[str, Any]:
        """Have the instance accept no more devices, and let those go that are there.

        :return: how many were ``closed``, and how many are ``left``.
        """
        return await self._ask_for(Drain, seconds + ANSWER_TIMEOUT, {"seconds": seconds})

    async def _pages(
        self,
        command: type[ControlCommand],
        rows: str,
        prefix: str,
        vendor: str | None,
        limit: int | None,
        **filters: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        after = ""
        more = True
        while more:
            page = await self._ask(
                command, after=after, prefix=prefix, vendor=vendor, limit=limit, **filters
            )
            for row in page[rows]:
                yield row
            more = page["more"] and bool(page[rows])
            after = page[rows][-1]["device_id"] if more else after

    async def _ask(self, command: type[ControlCommand], **arguments: Any) -> dict[str, Any]:
        return await self._ask_for(command, ANSWER_TIMEOUT, arguments)

    async def _ask_for(
        self, command: type[ControlCommand], timeout: float | None, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        protocol = self._protocol or await self._when_connected()
        return await self._ask_on(protocol, command, timeout, arguments)

    async def _when_connected(self) -> _ClientProtocol:
        if self._over:
            raise self._why_not
        waiting: Deferred[_ClientProtocol] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        try:
            return await waiting.addTimeout(GREETING_TIMEOUT, self._reactor)
        except TimeoutError:
            raise self._why_not from None

    async def _ask_on(
        self,
        protocol: Any,
        command: type[ControlCommand],
        timeout: float | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            asked: Deferred[dict[str, Any]] = protocol.dispatcher.callRemote(command, **given)
            if timeout is not None:
                asked.addTimeout(timeout, self._reactor)
            return await asked
        except ControlError:
            raise
        except TimeoutError:
            raise NotConnected(f"no answer within {timeout:g} s") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the instance does not know {command.__name__}: it is of an older version"
            ) from None
        except amp.RemoteAmpError as error:
            raise ControlError(f"{error.errorCode.decode()}: {error.description}") from None
        except amp.TooLong:
            raise BadArgument("an argument is too long") from None
        except UnicodeEncodeError:  # bytes of a command line that are no text
            raise BadArgument("an argument is not UTF-8") from None
        except Exception as error:  # noqa: BLE001 - the connection was lost, for any reason
            raise NotConnected(_why(error)) from None

    # Twisted's ClientService would do most of this, but not that a connection is lost, or has to
    # be closed, while it is greeted; nor may who waits for it stop it at once.

    async def _stay_connected(self) -> None:
        attempts = 0
        while self.running:
            protocol: _ClientProtocol | None = None
            try:
                protocol = await self._cancellable(self._endpoint.connect(_ClientFactory(self)))
                await self._cancellable(Deferred.fromCoroutine(self._greet(protocol)))
            except Exception as error:  # noqa: BLE001 - told, and tried again
                if protocol is not None:
                    protocol.transport.abortConnection()
                if not isinstance(error, ControlError):
                    error = NotConnected(_why(error))
                self._why_not = error
            else:
                attempts = 0
                await self._use(protocol)
            if not (self.running and self._retry):
                break
            attempts += 1
            with suppress(CancelledError):  # a stop
                await self._cancellable(deferLater(self._reactor, _RETRY(attempts)))
        self._over = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(self._why_not)

    async def _use(self, protocol: _ClientProtocol) -> None:
        """Serve who waits, until the connection is lost."""
        self._protocol = protocol
        waiting, self._waiting = self._waiting, []
        self._changed(None)
        for one in waiting:
            one.callback(protocol)
        reason = await protocol.lost
        self._protocol = None
        self._why_not = NotConnected(reason)
        self._changed(self._why_not)

    async def _cancellable(self, deferred: Deferred[Any]) -> Any:
        self._attempt = deferred
        try:
            return await deferred
        finally:
            self._attempt = None

    async def _greet(self, protocol: _ClientProtocol) -> None:
        await protocol.ready.addTimeout(GREETING_TIMEOUT, self._reactor)
        greeting = {"version": VERSION, "client": self._name}
        self.greeting = await self._ask_on(protocol, Hello, GREETING_TIMEOUT, greeting)
        for device_id in list(self._watchers):
            await self._ask_on(protocol, Watch, ANSWER_TIMEOUT, {"device_id": device_id})

    def happened(self, event: DeviceEvent) -> None:
        """An event has come."""
        watcher = self._watchers.get(event.device_id)
        if watcher is not None:
            watcher(event)


@implementer(IHandshakeListener)
class _ClientProtocol(BoxProtocol):
    def __init__(self, client: ControlClient) -> None:
        super().__init__(_Events(client))
        self.ready: Deferred[None] = Deferred()
        """Fires when it may be talked on."""
        self.lost: Deferred[str] = Deferred()
        """Fires with the reason when it has ended."""

    def connectionMade(self) -> None:
        keep_alive(self.transport)
        if not ISSLTransport.providedBy(self.transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """The server is who it should be."""
        self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        if not self.ready.called:
            self.ready.errback(reason)
        super().connectionLost(reason)
        self.lost.callback(_why(reason.value))


class _Events(Locator):
    """What a server may ask of a client: to hear of events."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    def answer(
        self, command: type[amp.Command], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Deferred[Any]:
        """See Locator."""
        return succeed(function(self, **arguments))

    @Event.responder
    def event(self, raw: str | None, decoded: str | None, **facts: Any) -> dict[str, Any]:
        """One has come."""
        self._client.happened(
            DeviceEvent(raw=bytes.fromhex(raw or ""), decoded=decoded or "", **facts)
        )
        return {}


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> _ClientProtocol:
        return _ClientProtocol(self._client)


def _why(error: BaseException | None) -> str:
    """One line on what has kept it from being connected."""
    match error:
        case SSL.Error(args=(list(causes),)):
            return "; ".join(str(cause[-1]) for cause in causes) or "TLS failed"
        case VerificationError():
            return "the certificate is for another server"
        case ConnectError(osError=int(number)):
            return os.strerror(number)
        case ConnectionClosed():
            return "the connection was closed"
        case TimeoutError():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__
