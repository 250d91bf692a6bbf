"""Closing the connections of an instance, each at a moment when nothing is under way on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.commands.delivery import CommandDelivery
from tracker.ingestion.gateway import Gateway
from tracker.interfaces import ISession

#: Seconds that a connection has to reach a moment when nothing is under way.
GRACE: Final = 5.0
#: Seconds between two checks of whether it has.
_CHECK_INTERVAL: Final = 0.1


class Drain:
    """Accepts no more connections, and closes those that there are.

    :param ports: what listens for connections.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        gateways: Collection[Gateway],
        delivery: CommandDelivery,
        ports: Sequence[IService],
    ) -> None:
        self._clock = clock
        self._gateways = gateways
        self._delivery = delivery
        self._ports = ports

    async def run(self, seconds: float) -> tuple[int, int]:
        """Close the connections, one after another within ``seconds``.

        :return: how many were closed, and how many are left.
        """
        for gateway in self._gateways:
            gateway.turn_away()  # those that are connected, and have not logged in yet
        await gatherResults([maybeDeferred(port.stopService) for port in self._ports])
        sessions = [session for gateway in self._gateways for session in gateway.devices.values()]
        self._log.info(
            "draining: {count} devices within {seconds:g} s", count=len(sessions), seconds=seconds
        )
        ends = [
            Deferred.fromCoroutine(self._close(session, seconds * number / len(sessions)))
            for number, session in enumerate(sessions)
        ]
        await gatherResults(ends)
        left = sum(len(gateway.devices) for gateway in self._gateways)
        self._log.info("drained: {count} devices are left", count=left)
        return len(sessions) - sum(map(self._is_open, sessions)), left

    async def _close(self, session: ISession, delay: float) -> None:
        """Close a connection when nothing is under way on it, or soon after all the same."""
        await deferLater(self._clock, delay)
        end = self._clock.seconds() + GRACE
        while self._delivery.load(session.device_id or "")[1] and self._clock.seconds() < end:
            await deferLater(self._clock, _CHECK_INTERVAL)
        session.retire()
        await self._closed_by(session, end)
        session.close()
        await self._closed_by(session, end + GRACE)  # for what it has been sent

    async def _closed_by(self, session: ISession, end: float) -> None:
        while self._is_open(session) and self._clock.seconds() < end:
            await deferLater(self._clock, _CHECK_INTERVAL)

    def _is_open(self, session: ISession) -> bool:
        device_id = session.device_id or ""
        return any(gateway.devices.get(device_id) is session for gateway in self._gateways)
