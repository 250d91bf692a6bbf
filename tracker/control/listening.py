"""Listen on a control port, and listen again after its socket was removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger

from tracker.net.endpoints import readable
from tracker.net.unixsocket import LockedUnixPort
from tracker.runtime.lifecycle import Abort

#: Seconds between two checks of the control port.
CHECK_INTERVAL: Final = 30.0

_WITHOUT: Final = (
    "no control port, so tracker-admin, the console and the bridge cannot reach this instance"
)


class NoPlace(Exception):
    """No control port can be created; the message gives the reason and a remedy."""


@frozen
class Place:
    """The endpoint of a control port."""

    name: str
    """Its name in log lines."""
    address: str
    """The address for clients."""
    endpoint: IStreamServerEndpoint


class ControlListener(Service):
    """Listens on the control port from start to stop.

    A Unix socket whose file was removed is created again: logind removes the folder of a user who
    has logged out, and programs clean up ``/tmp``.

    :param find: returns the place to listen on; called at each attempt, and after twistd has
        dropped root privileges: otherwise root would own the socket.
    :param abort: called with the reason if listening fails at the start; None to log a warning,
        serve devices without a control port, and try again.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        factory: IProtocolFactory,
        find: Callable[[], Place],
        abort: Abort | None,
    ) -> None:
        self.address: str | None = None
        """The address for clients; None without a control port."""
        self._factory = factory
        self._find = find
        self._abort = abort
        self._port: IListeningPort | None = None
        self._listening: Deferred[Any] = succeed(None)
        self._reason = ""  # as in the log
        self._timer = TimerService(CHECK_INTERVAL, self._check)
        self._timer.clock = clock

    def startService(self) -> None:
        """Start listening, and check regularly that clients can connect."""
        super().startService()
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening; accepted connections stay open."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._listening.cancel()
        await self._timer.stopService()
        await self._close()

    async def _close(self) -> None:
        port, self._port, self.address = self._port, None, None
        if port is not None:
            await maybeDeferred(port.stopListening)

    async def _check(self) -> None:
        if self._port is not None:
            if not isinstance(self._port, LockedUnixPort) or self._port.is_reachable:
                return
            self._log.warn(
                "control port: {address} was removed; listening again", address=self.address
            )
            await self._close()
        try:
            place = self._find()
        except NoPlace as error:
            self._unavailable(str(error))
            return
        self._listening = place.endpoint.listen(self._factory)
        try:
            self._listens(place, await self._listening)
        except CannotListenError as error:
            self._cannot_listen(place, error.socketError)
        except CancelledError:
            pass  # stopped
        except Exception as error:  # noqa: BLE001 - each endpoint fails in its own way
            self._cannot_listen(place, error)

    def _listens(self, place: Place, port: IListeningPort) -> None:
        self._port, self.address, self._abort, self._reason = port, place.address, None, ""
        self._log.info(
            "{name}: listening on {address}", name=place.name, address=readable(port.getHost())
        )

    def _cannot_listen(self, place: Place, reason: object) -> None:
        if self._abort is not None:
            self._abort(f"cannot listen on {place.name}: {reason}")
            return
        self._unavailable(
            f"cannot listen on {place.address}: {reason}. Give each instance on this machine its "
            "own --instance-id, or --control unix:PATH."
        )

    def _unavailable(self, reason: str) -> None:
        """Log a new reason for the lack of a control port."""
        if reason != self._reason:
            self._reason = reason
            self._log.warn("{without}: {reason}", without=_WITHOUT, reason=reason)


class WithoutControlPort(Service):
    """Logs at the start that the instance has no control port, by request."""

    address = None
    _log = Logger()

    def startService(self) -> None:
        """Log it."""
        super().startService()
        self._log.info(
            "{without}: --control none is given. Start it without that option.", without=_WITHOUT
        )
