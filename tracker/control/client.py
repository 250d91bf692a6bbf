"""Client of a control port: query and operate an instance, and watch its devices.

::

    client = ControlClient(reactor, client_endpoint(reactor, "unix:/run/tracker/control.sock"))
    client.startService()
    async for row in client.connections(prefix="3563"):
        print(row["device_id"], row["address"])
    reply = await client.send_command("356307042441013", "getinfo", wait=True)

The client reconnects whenever the connection is lost. Commands without a reply fail then, and
watched devices are watched again on the new connection.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from tracker.control.commands import (
    BadArgument,
    CommandStatus,
    ControlCommand,
    ControlError,
    Drain,
    DropConnection,
    GetDevice,
    Info,
    Lag,
    ListConnections,
    ListDeviceRegistry,
    SendCommand,
    SetLogLevel,
    Unwatch,
    Watch,
)
from tracker.control.connection import REPLY_TIMEOUT, Change, ClientProtocol, ControlConnection
from tracker.control.watching import Watcher, Watches

#: The error of an instance that knows no commands of bytes.
_TEXT_REQUIRED: Final = "text is missing"
#: Consumer groups that are requested, of all streams together.
MAX_GROUPS: Final = 10_000


class CannotSendBytes(ControlError):
    """The instance is of an earlier version, which sends only texts to devices."""

    def __init__(self) -> None:
        super().__init__("the instance is of an earlier version and cannot send bytes; upgrade it")


class ControlClient(Service):
    """A client of the control port of one instance.

    :param endpoint: see :func:`tracker.control.addresses.client_endpoint`.
    :param name: the client's name in the log of the instance.
    :param retry: True: reconnect after a failure or a loss of the connection.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        name: str = "",
        retry: bool = True,
    ) -> None:
        self.greeting: dict[str, Any] = {}
        """The latest reply to Hello: ``instance_id``, ``permission``, …"""
        self._name = name
        self._watches = Watches()
        self._connection = ControlConnection(
            reactor, endpoint, retry=retry, locator=self._watches, prepare=self._prepare
        )

    def startService(self) -> None:
        """Start connecting."""
        super().startService()
        self._connection.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect; return a Deferred that fires when the connection is closed."""
        super().stopService()
        return self._connection.stopService()

    def on_change(self, changed: Change) -> None:
        """Set the function that is called when the connection becomes usable or is lost."""
        self._connection.changed = changed

    @property
    def connection_error(self) -> ControlError | None:
        """Reason why commands cannot be sent now; None while the connection is usable."""
        return self._connection.connection_error

    async def info(self) -> dict[str, Any]:
        """Return facts of the instance, and its numbers of connections and commands."""
        return await self._call(Info)

    async def connections(
        self, prefix: str = "", vendor: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the devices that are connected to the instance, sorted by device ID.

        :param limit: rows of one request.
        """
        filters = {"prefix": prefix, "vendor": vendor, "limit": limit}
        async for row in self._pages(ListConnections, "connections", filters):
            yield row

    async def device_registry(
        self,
        prefix: str = "",
        *,
        vendor: str | None = None,
        limit: int | None = None,
        instance_id: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the devices that are connected to any instance, sorted by device ID."""
        filters = {"prefix": prefix, "vendor": vendor, "limit": limit, "instance_id": instance_id}
        async for row in self._pages(ListDeviceRegistry, "devices", filters):
            yield row

    async def device(self, device_id: str) -> dict[str, Any]:
        """Return the instance of a device, and the state of its connection.

        :raises NoSuchDevice: if the device is not connected, and no command waits for it.
        """
        return await self._call(GetDevice, device_id=device_id)

    async def send_command(
        self, device_id: str, content: str | bytes, *, wait: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Send a command to a device, on any instance.

        :param content: the text of the command, or its bytes.
        :param wait: True: wait for the final response without a time limit.
        :param options: ``command_id``, ``codec``, ``expires_at`` or ``expires_in`` (seconds),
            ``timeout`` (seconds), ``offline`` (``wait`` or ``fail``), ``sender`` (a name for
            people; default: that of the client).
        :raises CannotSendBytes: if the instance is of a version that sends only texts.
        """
        seconds = None if wait else REPLY_TIMEOUT
        if isinstance(content, str):
            options["text"] = content
        else:
            options["payload_hex"] = content.hex()
        try:
            return await self._call(SendCommand, seconds, device_id=device_id, wait=wait, **options)
        except BadArgument as error:
            if isinstance(content, bytes) and str(error) == _TEXT_REQUIRED:
                raise CannotSendBytes from None
            raise

    async def command_status(
        self, command_id: str, device_id: str | None = None, seconds: float = 0
    ) -> dict[str, Any]:
        """Return the status of a command.

        :param device_id: its device; needed to find a command that is queued at another instance
            or waits.
        :param seconds: time to wait for a final status, up to a minute. An instance of an earlier
            version does not wait.
        :raises NoSuchCommand: if the command is not found.
        """
        return await self._call(
            CommandStatus,
            seconds + REPLY_TIMEOUT,
            command_id=command_id,
            device_id=device_id,
            seconds=seconds,
        )

    async def drop_connection(self, device_id: str) -> str:
        """Close the connection of a device to the instance; return its network address.

        :raises NoSuchDevice: if the device is not connected to the instance.
        """
        address: str = (await self._call(DropConnection, device_id=device_id))["address"]
        return address

    async def watch(self, device_id: str, watcher: Watcher) -> bool:
        """Pass all traffic of a device to ``watcher``, until :meth:`unwatch`.

        :return: True if the device is connected to the instance now.
        """
        before = self._watches.set(device_id, watcher)
        try:
            here: bool = (await self._call(Watch, device_id=device_id))["here"]
        except ControlError:
            self._watches.set(device_id, before)
            raise
        return here

    async def unwatch(self, device_id: str) -> None:
        """Stop watching a device.

        :raises NoSuchDevice: if the device is not watched.
        """
        if self._watches.set(device_id, None) is not None and self.connection_error is not None:
            return  # the next connection does not watch the device
        await self._call(Unwatch, device_id=device_id)

    async def lag(self, streams: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the lag of each consumer group.

        :param streams: names of streams; None: all streams.
        """
        groups: list[dict[str, Any]] = []
        more = True
        while more and len(groups) < MAX_GROUPS:
            page = await self._call(Lag, streams=streams, skip=len(groups))
            groups += page["groups"]
            more = page["more"] and bool(page["groups"])
        return groups

    async def set_log_level(self, level: str, namespace: str | None = None) -> str:
        """Set the lowest level that is logged; return the previous one.

        :param namespace: part of the program; None: all of it.
        """
        reply = await self._call(SetLogLevel, level=level, namespace=namespace)
        before: str = reply["before"]
        return before

    async def drain(self, seconds: float) -> dict[str, Any]:
        """Refuse new connections of devices, and close the present ones one after another.

        :param seconds: time for closing them.
        :return: numbers of connections: ``closed`` and ``left``.
        """
        if math.isnan(seconds):
            raise BadArgument("seconds must be a number")
        return await self._call(Drain, seconds + REPLY_TIMEOUT, seconds=seconds)

    async def _pages(
        self, command: type[ControlCommand], rows: str, filters: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        after = ""
        more = True
        while more:
            page = await self._call(command, after=after, **filters)
            for row in page[rows]:
                yield row
            more = page["more"] and bool(page[rows])
            before, after = after, page[rows][-1]["device_id"] if more else after
            if more and after <= before:
                raise ControlError(f"{command.__name__}: the pages are not in order")

    async def _call(
        self,
        command: type[ControlCommand],
        timeout: float | None = REPLY_TIMEOUT,
        /,  # a command may have an argument of the same name
        **arguments: Any,
    ) -> dict[str, Any]:
        return await self._connection.call(command, timeout, arguments)

    async def _prepare(self, protocol: ClientProtocol) -> None:
        self.greeting = await protocol.greet(self._name)
        for device_id in self._watches:
            await protocol.call(Watch, REPLY_TIMEOUT, {"device_id": device_id})
