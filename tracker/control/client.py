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

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from attrs import frozen
from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.boxes import BoxProtocol, Locator
from tracker.control.commands import (
    VERSION,
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

#: Seconds that an answer is waited for which needs nobody but the instance and Redis.
ANSWER_TIMEOUT: Final = 15.0
#: Seconds within which a connection has to be made and greeted.
GREETING_TIMEOUT: Final = 10.0


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
        self._why_not: ControlError | None = None
        self._client = ClientService(
            endpoint,
            _ClientFactory(self),
            clock=reactor,
            retryPolicy=backoffPolicy(0.5, 10.0),
            prepareConnection=lambda protocol: Deferred.fromCoroutine(self._greet(protocol)),
        )

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._client.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done."""
        super().stopService()
        stopped: Deferred[None] = self._client.stopService()
        return stopped

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
        timeout = None if wait else ANSWER_TIMEOUT
        return await self._ask(
            SendCommand, timeout, device_id=device_id, text=text, wait=wait, **options
        )

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
        return await self._ask(Drain, seconds + ANSWER_TIMEOUT, seconds=seconds)

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

    async def _ask(
        self,
        command: type[ControlCommand],
        timeout: float | None = ANSWER_TIMEOUT,
        **arguments: Any,
    ) -> dict[str, Any]:
        try:
            connecting = self._client.whenConnected(failAfterFailures=None if self._retry else 1)
            protocol = await connecting.addTimeout(GREETING_TIMEOUT, self._reactor)
        except Exception as error:  # noqa: BLE001 - whatever kept it from being connected
            raise self._why_not or NotConnected(_why(error)) from None
        return await self._ask_on(protocol, command, timeout, arguments)

    async def _ask_on(
        self,
        protocol: Any,
        command: type[ControlCommand],
        timeout: float | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        given = {name: value for name, value in arguments.items() if value is not None}
        asked: Deferred[dict[str, Any]] = protocol.dispatcher.callRemote(command, **given)
        if timeout is not None:
            asked.addTimeout(timeout, self._reactor)
        try:
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
            raise ControlError("an argument is too long") from None
        except Exception as error:  # noqa: BLE001 - the connection was lost, for any reason
            raise NotConnected(_why(error)) from None

    async def _greet(self, protocol: Any) -> None:
        try:
            await protocol.ready
            greeting = {"version": VERSION, "client": self._name}
            self.greeting = await self._ask_on(protocol, Hello, GREETING_TIMEOUT, greeting)
            for device_id in list(self._watchers):
                await self._ask_on(protocol, Watch, ANSWER_TIMEOUT, {"device_id": device_id})
        except Exception as error:
            self._why_not = error if isinstance(error, ControlError) else NotConnected(_why(error))
            raise
        self._why_not = None

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

    def connectionMade(self) -> None:
        if not ISSLTransport.providedBy(self.transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """The server is who it should be."""
        self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ready.called:
            self.ready.errback(reason)
        super().connectionLost(reason)


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


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
