"""A control port from Python: query an instance, operate it, watch a device.

::

    client = ControlClient(reactor, client_endpoint(reactor, "unix:/run/tracker/control.sock"))
    client.startService()
    async for row in client.connections(prefix="3563"):
        print(row["device_id"], row["address"])
    answer = await client.send_command("356307042441013", "getinfo", wait=True)

The connection is made again whenever it is lost. Commands that were under way fail then, and the
devices that are watched are watched again.
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

#: Groups at most that are requested, of all streams together.
MAX_GROUPS: Final = 10_000


class ControlClient(Service):
    """One instance's control port.

    :param endpoint: see :func:`tracker.control.addresses.client_endpoint`.
    :param name: the client's name in the instance's log.
    :param retry: whether to connect again after a failure or a loss.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        name: str = "",
        retry: bool = True,
    ) -> None:
        self.greeting: dict[str, Any] = {}
        """The latest answer to Hello: ``instance_id``, ``permission``, …"""
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
        """Disconnect; fires when that is done."""
        super().stopService()
        return self._connection.stopService()

    def on_change(self, changed: Change) -> None:
        """Have a function called whenever the connection is usable, and when it was lost."""
        self._connection.changed = changed

    @property
    def connection_error(self) -> ControlError | None:
        """Why no command can be sent now; None if one can."""
        return self._connection.connection_error

    async def info(self) -> dict[str, Any]:
        """Return facts of the instance, and how much it holds."""
        return await self._ask(Info)

    async def connections(
        self, prefix: str = "", vendor: str | None = None, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the devices that are connected to the instance, sorted by their ids.

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
        """Yield the devices that are connected to any instance, sorted by their ids."""
        filters = {"prefix": prefix, "vendor": vendor, "limit": limit, "instance_id": instance_id}
        async for row in self._pages(ListDeviceRegistry, "devices", filters):
            yield row

    async def device(self, device_id: str) -> dict[str, Any]:
        """Return where a device is connected, and the state of its connection.

        :raises NoSuchDevice: if it is connected nowhere, and no command waits for it.
        """
        return await self._ask(GetDevice, device_id=device_id)

    async def send_command(
        self, device_id: str, text: str, *, wait: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Send a command to a device, wherever it is.

        :param wait: wait for its final response, however long that takes.
        :param options: ``command_id``, ``codec``, ``expires_at`` or ``expires_in`` (seconds),
            ``timeout`` (seconds), ``offline`` (``wait`` or ``fail``).
        """
        patience = None if wait else REPLY_TIMEOUT
        return await self._ask(
            SendCommand, patience, device_id=device_id, text=text, wait=wait, **options
        )

    async def command_status(self, command_id: str, device_id: str | None = None) -> dict[str, Any]:
        """Return the state of a command.

        :param device_id: helps to find a command that is still queued.
        :raises NoSuchCommand: if nothing is known of it.
        """
        return await self._ask(CommandStatus, command_id=command_id, device_id=device_id)

    async def drop_connection(self, device_id: str) -> str:
        """Close the connection of a device to the instance, and return its address.

        :raises NoSuchDevice: if it is not connected there.
        """
        address: str = (await self._ask(DropConnection, device_id=device_id))["address"]
        return address

    async def watch(self, device_id: str, watcher: Watcher) -> bool:
        """Pass all traffic of a device to ``watcher``, until :meth:`unwatch`.

        :return: whether it is connected to the instance now.
        """
        before = self._watches.set(device_id, watcher)
        try:
            here: bool = (await self._ask(Watch, device_id=device_id))["here"]
        except ControlError:
            self._watches.set(device_id, before)
            raise
        return here

    async def unwatch(self, device_id: str) -> None:
        """Stop watching a device.

        :raises NoSuchDevice: if it was not watched.
        """
        if self._watches.set(device_id, None) is not None and self.connection_error is not None:
            return  # the next connection begins without it
        await self._ask(Unwatch, device_id=device_id)

    async def lag(self, streams: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the lag of each consumer group, of all streams or of some."""
        groups: list[dict[str, Any]] = []
        more = True
        while more and len(groups) < MAX_GROUPS:
            page = await self._ask(Lag, streams=streams, skip=len(groups))
            groups += page["groups"]
            more = page["more"] and bool(page["groups"])
        return groups

    async def set_log_level(self, level: str, namespace: str | None = None) -> str:
        """Log events of this level and above; return the level of before."""
        answer = await self._ask(SetLogLevel, level=level, namespace=namespace)
        before: str = answer["before"]
        return before

    async def drain(self, seconds: float) -> dict[str, Any]:
        """Refuse new connections of devices, and close the present ones one after another.

        :return: numbers of connections: ``closed`` and ``left``.
        """
        if math.isnan(seconds):
            raise BadArgument("seconds must be a number")
        return await self._ask(Drain, seconds + REPLY_TIMEOUT, seconds=seconds)

    async def _pages(
        self, command: type[ControlCommand], rows: str, filters: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        after = ""
        more = True
        while more:
            page = await self._ask(command, after=after, **filters)
            for row in page[rows]:
                yield row
            more = page["more"] and bool(page[rows])
            before, after = after, page[rows][-1]["device_id"] if more else after
            if more and after <= before:
                raise ControlError(f"{command.__name__}: the pages are not in order")

    async def _ask(
        self,
        command: type[ControlCommand],
        patience: float | None = REPLY_TIMEOUT,
        /,  # a command may have an argument of the same name
        **arguments: Any,
    ) -> dict[str, Any]:
        return await self._connection.ask(command, patience, arguments)

    async def _prepare(self, protocol: ClientProtocol) -> None:
        self.greeting = await protocol.greet(self._name)
        for device_id in self._watches:
            await protocol.ask(Watch, REPLY_TIMEOUT, {"device_id": device_id})
