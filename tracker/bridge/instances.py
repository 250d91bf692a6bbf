"""Send commands through the control port of any instance that accepts them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    TimeoutError,  # noqa: A004
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.control.client import ControlClient
from tracker.control.commands import (
    BadArgument,
    ControlError,
    NotPermitted,
    RedisUnavailable,
    VersionMismatch,
)
from tracker.control.connection import NotConnected, with_remedy
from tracker.control.pool import (
    NO_CONTROL_PORT,
    NO_INSTANCE,
    BadAddress,
    ControlPool,
    Credentials,
)
from tracker.errors import Refused, Unavailable
from tracker.log.redis.heartbeats import control_ports
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.untrusted import shown

#: Seconds between two lookups of running instances.
INTERVAL: Final = 10.0
#: Minimum seconds between two lookups that commands request.
MIN_LOOKUP_INTERVAL: Final = 1.0
#: Seconds that a command waits for the first connection to an instance.
CONNECT_TIMEOUT: Final = 10.0
#: Maximum number of control ports whose errors are reported together.
MAX_REASONS: Final = 5
#: The bridge's name in the instances' logs.
CLIENT_NAME: Final = "bridge"

#: Errors that concern the instance or the connection, not the command that was sent.
_INSTANCE_ERRORS: Final = (
    NotConnected,
    BadAddress,
    RedisUnavailable,
    NotPermitted,
    VersionMismatch,
)


class NoInstance(Exception):
    """No instance accepts commands now; the message gives the reason for each."""


class Instances(Service):
    """A service with a connection to the control port of each running instance.

    :param condition: is met while at least one control port is usable.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        redis: RedisConnection,
        credentials: Credentials,
        condition: Condition,
    ) -> None:
        self._reactor = reactor
        self._redis = redis
        self._condition = condition
        self._pool = ControlPool(
            reactor, CLIENT_NAME, credentials, changed=self._connection_changed
        )
        self._waiting: list[Deferred[None]] = []
        self._lookup_lock = DeferredLock()
        self._last_lookup = -MIN_LOOKUP_INTERVAL
        self._has_instances = False
        self._timer = RedisTimer(reactor, redis, INTERVAL, self._look_up)

    def startService(self) -> None:
        """Start looking up instances."""
        super().startService()
        self._pool.startService()
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect from all instances."""
        super().stopService()
        self._release_waiting()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        closed = self._pool.stopService()
        await self._timer.stopService()
        await closed

    async def send_command(
        self, device_id: str, content: str | bytes, **options: Any
    ) -> dict[str, Any]:
        """Send a command through one instance; see :meth:`ControlClient.send_command`.

        If an instance fails, the next one is tried. ``command_id`` is therefore required, so that
        the device gets the command at most once.

        :raises NoInstance: if no instance accepts commands now.
        :raises BadArgument: if the instance rejects an argument.
        :raises ControlError: if all instances that accept commands have failed with this command.
        """
        await self._wait_for_connection()
        errors: dict[str, ControlError] = {}
        while (found := self._next_client(errors)) is not None:
            address, client = found
            try:
                reply: dict[str, Any] = await client.send_command(device_id, content, **options)
            except BadArgument:
                raise
            except ControlError as error:
                errors[address] = error
                continue
            self._pool.prefer(address)
            self._condition.met()
            return reply
        for failure in errors.values():
            if not isinstance(failure, _INSTANCE_ERRORS):
                raise failure
        reasons = self._reasons(errors)
        self._condition.fails(reasons)
        raise NoInstance(reasons)

    async def _wait_for_connection(self) -> None:
        """Wait for a connection, up to :data:`CONNECT_TIMEOUT`, if none is usable."""
        if not self._pool.clients:
            await self._lookup_lock.run(self._look_up_now)
        reasons = self._pool.connection_errors.values()
        if self._pool.usable or not any(isinstance(error, NotConnected) for error in reasons):
            return
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        with suppress(TimeoutError):
            await waiting.addTimeout(CONNECT_TIMEOUT, self._reactor)

    def _next_client(self, errors: Mapping[str, ControlError]) -> tuple[str, ControlClient] | None:
        """Return address and client of a usable control port without an error so far."""
        return next((item for item in self._pool.usable if item[0] not in errors), None)

    def _reasons(self, errors: Mapping[str, ControlError]) -> str:
        """Return the errors of all control ports, in one line."""
        all_errors = {**self._pool.connection_errors, **errors}
        reasons = [_reason(address, error) for address, error in sorted(all_errors.items())]
        left_out = len(reasons) - MAX_REASONS
        if left_out > 0:
            reasons[MAX_REASONS:] = [f"and {left_out} more"]
        return "; ".join(reasons) or (NO_CONTROL_PORT if self._has_instances else NO_INSTANCE)

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def _connection_changed(self, reason: ControlError | None) -> None:
        """Report the health after a connection was made (``reason`` is None) or lost."""
        if self.running:
            self._report_health()
            if reason is None:
                self._release_waiting()

    def _report_health(self) -> None:
        if self._pool.usable:
            self._condition.met()
        else:
            self._condition.fails(self._reasons({}))

    def _look_up_now(self) -> Deferred[None] | None:
        """Look up instances at once for a command that finds none, at most once a second."""
        if self._pool.clients or self._reactor.seconds() - self._last_lookup < MIN_LOOKUP_INTERVAL:
            return None
        return Deferred.fromCoroutine(self._look_up())

    async def _look_up(self) -> None:
        self._last_lookup = self._reactor.seconds()
        try:
            found = await control_ports(self._redis)
        except (Refused, Unavailable) as error:
            # The known control ports remain, because their instances may still run.
            self._log.debug("cannot look up instances: {error}", error=error)
            return
        if self.running:
            advertised = {address for address in found.values() if address is not None}
            self._has_instances = bool(found)
            self._pool.disconnect_others(advertised)
            if self._pool.clients or not advertised:
                self._report_health()  # new control ports, which are not connected yet, follow
            self._pool.update(advertised)


def _reason(address: str, error: ControlError) -> str:
    reason = f"{shown(address)}: {with_remedy(address, shown(error))}"
    if isinstance(error, NotPermitted):
        return f"{reason}; grant it to the bridge in the instance's --control-permissions"
    if "certificate verify failed" in str(error):
        return f"{reason}: the certificate is not signed by the authority in --control-ca"
    return reason
