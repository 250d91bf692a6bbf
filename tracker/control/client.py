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

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,  # noqa: A004
    succeed,
)
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.commands import (
    MOST_NAME,
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
from tracker.control.wire import BoxProtocol, Locator
from tracker.net.endpoints import keep_alive
from tracker.position import iso_milliseconds
from tracker.untrusted import MAX_LINE, shown

#: Seconds that an answer is waited for which needs nobody but the instance and Redis.
ANSWER_TIMEOUT: Final = 15.0
#: Seconds within which a connection has to be made and greeted.
GREETING_TIMEOUT: Final = 10.0
#: Groups at most that are requested, of all streams together.
MAX_GROUPS: Final = 10_000
#: Seconds between two attempts to connect: at first, and at most.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 10.0


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

    _log = Logger()

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, name: str = "", retry: bool = True
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._name = name
        self._retry = retry
        self._watchers: dict[str, Watcher] = {}
        self._changed: Change = lambda reason: None
        self.greeting: dict[str, Any] = {}
        """What the instance has said to Hello, last: ``instance_id``, ``role``, …"""
        self._protocol: _ClientProtocol | None = None  # once it is greeted
        self._made: _ClientProtocol | None = None  # the same, and before
        self._why_not: ControlError = NotConnected("not started")
        self._over = False  # no further attempt to connect is made
        self._wanted: list[Deferred[_ClientProtocol]] = []
        self._loop: Deferred[None] = succeed(None)
        self._interruptible: Deferred[Any] | None = None

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self._over = False
        self._why_not = NotConnected(f"no connection within {GREETING_TIMEOUT:g} s")
        self._loop = Deferred.fromCoroutine(self._stay_connected())

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done."""
        super().stopService()
        if self._interruptible is not None:
            self._interruptible.cancel()
        if self._made is not None:
            self._made.transport.loseConnection()
        return self._loop

    def when_it_changes(self, changed: Change) -> None:
        """Have somebody told whenever the connection is lost, and when it is back."""
        self._changed = changed

    @property
    def trouble(self) -> ControlError | None:
        """Why it cannot be talked to now; None when it can."""
        return None if self._protocol is not None else self._reason()

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
        patience = None if wait else ANSWER_TIMEOUT
        return await self._ask(
            SendCommand, patience, device_id=device_id, text=text, wait=wait, **options
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
        before = self._watchers.get(device_id)
        self._watchers[device_id] = watcher
        try:
            here: bool = (await self._ask(Watch, device_id=device_id))["here"]
        except ControlError:
            if before is None:
                self._watchers.pop(device_id, None)
            else:
                self._watchers[device_id] = before
            raise
        return here

    async def unwatch(self, device_id: str) -> None:
        """Be told no more.

        :raises NoSuchDevice: when it was not watched.
        """
        if self._watchers.pop(device_id, None) is not None and self._protocol is None:
            return  # the next connection begins without
        await self._ask(Unwatch, device_id=device_id)

    async def lag(self, streams: list[str] | None = None) -> list[dict[str, Any]]:
        """How far behind the groups of each stream are, or of some."""
        groups: list[dict[str, Any]] = []
        more = True
        while more and len(groups) < MAX_GROUPS:
            page = await self._ask(Lag, streams=streams, skip=len(groups))
            groups += page["groups"]
            more = page["more"] and bool(page["groups"])
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
        if math.isnan(seconds):
            raise BadArgument("seconds must be a number")
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
            before, after = after, page[rows][-1]["device_id"] if more else after
            if more and after <= before:
                raise ControlError(f"{command.__name__}: the pages are not in order")

    async def _ask(
        self,
        command: type[ControlCommand],
        patience: float | None = ANSWER_TIMEOUT,
        /,  # a command may have an argument of the same name
        **arguments: Any,
    ) -> dict[str, Any]:
        return await self._ask_on(await self._connected(), command, patience, arguments)

    async def _connected(self) -> _ClientProtocol:
        if self._protocol is not None:
            return self._protocol
        if self._over or not self.running:
            raise self._reason()
        wanted: Deferred[_ClientProtocol] = Deferred()
        self._wanted.append(wanted)
        try:
            return await wanted.addTimeout(GREETING_TIMEOUT, self._reactor)
        except TimeoutError:
            raise self._reason() from None
        finally:
            if wanted in self._wanted:
                self._wanted.remove(wanted)

    async def _ask_on(
        self,
        protocol: _ClientProtocol,
        command: type[ControlCommand],
        timeout: float | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        given = _arguments(command, arguments)
        try:
            asked: Deferred[dict[str, Any]] = protocol.dispatcher.callRemote(command, **given)
            if timeout is not None:
                asked.addTimeout(timeout, self._reactor)
            return await asked
        except ControlError as error:
            raise type(error)(shown(error, MAX_LINE)) from None
        except TimeoutError:
            raise NotConnected(f"no answer within {timeout:g} s") from None
        except amp.UnhandledCommand:
            raise VersionMismatch(
                f"the instance does not know {command.__name__}: it is of an older version"
            ) from None
        except amp.RemoteAmpError as error:
            code, text = shown(error.errorCode), shown(error.description, MAX_LINE)
            raise ControlError(f"{code}: {text}") from None
        except amp.TooLong:
            raise BadArgument("an argument is too long") from None
        except Exception as error:  # noqa: BLE001 - the connection was lost, for any reason
            raise NotConnected(_why(error)) from None

    async def _stay_connected(self) -> None:
        delay = FIRST_RETRY
        while self.running:
            if await self._connect_once():
                delay = FIRST_RETRY
            if not (self.running and self._retry):
                break
            with suppress(CancelledError):  # a stop
                await self._or_stopped(deferLater(self._reactor, delay))
            delay = min(2 * delay, LAST_RETRY)
        if not self.running:
            self._why_not = NotConnected("stopped")
        self._over = True
        self._fail()

    async def _connect_once(self) -> bool:
        """Be connected until the connection is lost; whether it was of any use."""
        try:
            connecting = self._endpoint.connect(_ClientFactory(self))
            self._made = protocol = await self._or_stopped(connecting)
            if self.running:
                await self._greet(protocol)
            else:
                protocol.transport.loseConnection()
        except Exception as error:  # noqa: BLE001 - whatever kept it from being connected
            self._why_not = error if isinstance(error, ControlError) else NotConnected(_why(error))
            if not isinstance(self._why_not, NotConnected):
                self._fail()  # it will be so the next time, too
            if self._made is None:
                return False
            self._made.transport.abortConnection()
        greeted = self._protocol is not None
        reason = await self._made.lost
        self._made = self._protocol = None
        if greeted:
            self._why_not = NotConnected(reason)
            self._changed(self._why_not)
        return greeted

    async def _or_stopped(self, deferred: Deferred[Any]) -> Any:
        self._interruptible = deferred
        try:
            return await deferred
        finally:
            self._interruptible = None

    def _fail(self) -> None:
        wanted, self._wanted = self._wanted, []
        for deferred in wanted:
            deferred.errback(self._reason())

    def _reason(self) -> ControlError:
        # One of its own for each who is told: an exception remembers where it was raised.
        return type(self._why_not)(str(self._why_not))

    async def _greet(self, protocol: _ClientProtocol) -> None:
        await self._in_time(protocol.ready)
        greeting = {"version": VERSION, "client": self._name}
        self.greeting = await self._ask_on(protocol, Hello, GREETING_TIMEOUT, greeting)
        for device_id in list(self._watchers):
            await self._ask_on(protocol, Watch, ANSWER_TIMEOUT, {"device_id": device_id})
        self._protocol = protocol
        self._changed(None)
        wanted, self._wanted = self._wanted, []
        for deferred in wanted:
            deferred.callback(protocol)

    async def _in_time(self, ready: Deferred[None]) -> None:
        try:
            await ready.addTimeout(GREETING_TIMEOUT, self._reactor)
        except TimeoutError:
            raise NotConnected(f"no TLS within {GREETING_TIMEOUT:g} s") from None

    def happened(self, event: DeviceEvent) -> None:
        """An event has come."""
        watcher = self._watchers.get(event.device_id)
        if watcher is not None:
            try:
                watcher(event)
            except Exception:  # noqa: BLE001 - a fault of its own, which ends nothing here
                self._log.failure("the watcher of {device} has failed", device=event.device_id)


@implementer(IHandshakeListener)
class _ClientProtocol(BoxProtocol):
    def __init__(self, client: ControlClient) -> None:
        super().__init__(_Events(client))
        self.ready: Deferred[None] = Deferred()
        """Fires when it may be talked on."""
        self.lost: Deferred[str] = Deferred()
        """Fires when it is no more, with the reason."""

    def connectionMade(self) -> None:
        keep_alive(self.transport)
        if not ISSLTransport.providedBy(self.transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        """The server is who it should be."""
        self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
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
    def event(
        self, raw: str | None, decoded: str | None, kind: str, at: float, **facts: Any
    ) -> dict[str, Any]:
        """Pass on an event; drop it if its time or bytes are malformed."""
        try:
            digits = bytes.fromhex(raw or "")
            iso_milliseconds(int(at * 1000))
        except (ValueError, OverflowError) as error:
            self._log.debug("an event is left out: {error}", error=shown(error))
            return {}
        kind = shown(kind, MOST_NAME)
        self._client.happened(
            DeviceEvent(raw=digits, decoded=decoded or "", kind=kind, at=at, **facts)
        )
        return {}


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> _ClientProtocol:
        return _ClientProtocol(self._client)


def _arguments(command: type[ControlCommand], given: dict[str, Any]) -> dict[str, Any]:
    """Those that are given, as AMP takes them.

    :raises BadArgument: when there is no such argument, or it cannot be that.
    """
    kinds = {name.decode(): kind for name, kind in command.arguments}
    made = {}
    for name, value in given.items():
        if name not in kinds:
            raise BadArgument(f"{command.__name__} has no argument {name}")
        if value is not None:
            if isinstance(kinds[name], amp.Float) and isinstance(value, int):
                value = float(value)
            try:
                kinds[name].toStringProto(value, None)
            except Exception as error:  # noqa: BLE001 - each type fails in its own way
                raise BadArgument(f"{name} cannot be sent: {_why(error)}") from None
            made[name] = value
    return made


def _why(error: BaseException | None) -> str:
    """One line, for people."""
    match error:
        case UnicodeEncodeError():
            return "is not UTF-8"
        case SSL.Error() if error.args and error.args[0]:
            # What OpenSSL says, last: library, function, reason. An alert is the other side's.
            return f"TLS: {error.args[0][-1][-1]}"
        case VerificationError():
            return "TLS: the server's certificate is for another name"
        case ConnectionDone():
            return "the instance has closed the connection"
        case ConnectionLost():
            return "the connection was cut off: the instance tells why in its log, if it was that"
        case ConnectError() if error.osError is not None:
            return os.strerror(error.osError)
        case _:
            return str(error) or type(error).__name__
