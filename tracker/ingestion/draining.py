"""Close the connections of an instance, each at a moment when nothing is under way on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.commands.delivery import CommandDelivery
from tracker.durations import format_duration
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.interfaces import IConnection
from tracker.wording import counted

#: Seconds to wait until nothing is under way on a connection, and again until it has closed.
RETIRE_TIMEOUT: Final = 5.0
#: Seconds between two checks.
_CHECK_INTERVAL: Final = 0.1


class Drain:
    """Refuses new connections, and closes the open ones.

    :param ports: the services that listen for connections.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        gateways: Collection[Gateway],
        *,
        connected: ConnectedDevices,
        delivery: CommandDelivery,
        ports: Sequence[IService],
    ) -> None:
        self._clock = clock
        self._gateways = gateways
        self._connected = connected
        self._delivery = delivery
        self._ports = ports

    async def run(self, seconds: float) -> tuple[int, int]:
        """Close the connections, one after another within ``seconds``.

        :return: the number of closed connections, and the number of remaining devices.
        """
        for gateway in self._gateways:
            gateway.refuse_logins()  # on connections that are open already
        await gatherResults(
            [maybeDeferred(port.stopService) for port in self._ports], consumeErrors=True
        )
        connections = list(self._connected.connections)
        self._log.info(
            "draining: closing the connections of {devices} within {time}",
            devices=counted(len(self._connected), "device"),
            time=format_duration(seconds),
        )
        ends = [
            Deferred.fromCoroutine(self._close(connection, seconds * number / len(connections)))
            for number, connection in enumerate(connections)
        ]
        await gatherResults(ends, consumeErrors=True)
        left = len(self._connected)
        self._log.info("drained: {devices} still connected", devices=counted(left, "device"))
        return len(connections) - sum(map(self._is_open, connections)), left

    async def _close(self, connection: IConnection, delay: float) -> None:
        """Close a connection when nothing is under way on it, or after a timeout."""
        await deferLater(self._clock, delay)
        end = self._clock.seconds() + RETIRE_TIMEOUT
        while self._awaits_answer(connection) and self._clock.seconds() < end:
            await deferLater(self._clock, _CHECK_INTERVAL)
        connection.retire()
        await self._closed_by(connection, end)
        connection.close()
        await self._closed_by(connection, end + RETIRE_TIMEOUT)  # the peer reads its last bytes

    async def _closed_by(self, connection: IConnection, end: float) -> None:
        while self._is_open(connection) and self._clock.seconds() < end:
            await deferLater(self._clock, _CHECK_INTERVAL)

    def _awaits_answer(self, connection: IConnection) -> bool:
        """Return True if a command is outstanding on a connection."""
        return any(self._delivery.backlog(device_id)[1] for device_id in connection.device_ids)

    def _is_open(self, connection: IConnection) -> bool:
        return self._connected.is_serving(connection)
