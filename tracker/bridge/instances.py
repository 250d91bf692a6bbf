"""Send commands through the control port of any instance that takes them."""

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
from tracker.control.connection import NotConnected
from tracker.control.pool import BadAddress, ControlPool, Credentials
from tracker.errors import Refused, Unavailable
from tracker.log.redis.heartbeats import control_ports
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.untrusted import shown

#: Seconds between two looks at which instances live.
INTERVAL: Final = 10.0
#: Seconds after a look in which no command is worth another one.
FRESH: Final = 1.0
#: Seconds that a command waits for the first connection to any instance.
PATIENCE: Final = 10.0
#: Ports at most for which the reason why they take no commands is reported.
MAX_REASONS: Final = 5
#: The bridge's name in the instances' logs.
NAME: Final = "bridge"

_NONE_LIVES: Final = "no instance with a control port lives"
#: Errors of an instance that concern any command, and not the one that was sent.
_OUT_OF_ORDER: Final = (
    NotConnected,
    BadAddress,
    RedisUnavailable,
    NotPermitted,
    VersionMismatch,
)


class NoInstance(Exception):
    """No instance takes commands now; the text gives the reason for each."""


class Instances(Service):
    """Find the control ports of all living instances, and ask one after the other.

    :param condition: is met when one is usable.
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
        self._pool = ControlPool(reactor, NAME, credentials, changed=self._changed)
        self._waiting: list[Deferred[None]] = []
        self._one_look = DeferredLock()
        self._looked = -FRESH
        self._timer = RedisTimer(reactor, redis, INTERVAL, self._look)

    def startService(self) -> None:
        """Start looking for instances."""
        super().startService()
        self._pool.startService()
        self._timer.startService()

    def stopService(self) -> Deferred[None]:
        """Disconnect from all instances."""
        super().stopService()
        self._connected()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        closed = self._pool.stopService()
        await self._timer.stopService()
        await closed

    async def send_command(self, device_id: str, text: str, **options: Any) -> dict[str, Any]:
        """Have any instance send a command; see :meth:`ControlClient.send_command`.

        Several instances may be asked, so ``command_id`` is required: the command is sent once.

        :raises NoInstance: if no instance takes commands now.
        :raises BadArgument: if the instance that was asked rejects an argument.
        :raises ControlError: if the instances that take commands have failed with this one.
        """
        await self._some()
        asked: dict[str, ControlError] = {}
        while (found := self._next(asked)) is not None:
            address, client = found
            try:
                answer: dict[str, Any] = await client.send_command(device_id, text, **options)
            except BadArgument:
                raise
            except ControlError as error:
                asked[address] = error
                continue
            self._pool.prefer(address)
            self._condition.met()
            return answer
        for refusal in asked.values():
            if not isinstance(refusal, _OUT_OF_ORDER):
                raise refusal
        why = self._why(asked)
        self._condition.fails(why)
        raise NoInstance(why)

    async def _some(self) -> None:
        """Wait a little for a connection, if there is none."""
        if not self._pool.clients:
            await self._one_look.run(self._look_again)
        troubles = self._pool.connection_errors.values()
        if self._pool.usable or not any(isinstance(why, NotConnected) for why in troubles):
            return
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        with suppress(TimeoutError):
            await waiting.addTimeout(PATIENCE, self._reactor)

    def _next(self, asked: Mapping[str, ControlError]) -> tuple[str, ControlClient] | None:
        """Return a control port that is connected and was not asked."""
        return next((item for item in self._pool.usable if item[0] not in asked), None)

    def _why(self, asked: Mapping[str, ControlError]) -> str:
        """Return why no instance takes commands."""
        troubles = {**self._pool.connection_errors, **asked}
        reasons = [_line(address, error) for address, error in sorted(troubles.items())]
        left_out = len(reasons) - MAX_REASONS
        if left_out > 0:
            reasons[MAX_REASONS:] = [f"and {left_out} more"]
        return "; ".join(reasons) or _NONE_LIVES

    def _connected(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def _changed(self, reason: ControlError | None) -> None:
        """A connection was made, or lost."""
        if self.running:
            self._tell()
            if reason is None:
                self._connected()

    def _tell(self) -> None:
        if self._pool.usable:
            self._condition.met()
        else:
            self._condition.fails(self._why({}))

    def _look_again(self) -> Deferred[None] | None:
        """Look at once for a command that finds no instance, at most once a second."""
        if self._pool.clients or self._reactor.seconds() - self._looked < FRESH:
            return None
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        self._looked = self._reactor.seconds()
        try:
            found = await control_ports(self._redis)
        except (Refused, Unavailable) as error:
            # The known instances may be alive all the same.
            self._log.debug("instances not looked up: {error}", error=error)
            return
        if self.running:
            advertised = set(found.values())
            self._pool.disconnect_others(advertised)
            if self._pool.clients or not advertised:
                self._tell()  # of those that have had time to connect
            self._pool.keep(advertised)


def _line(address: str, error: ControlError) -> str:
    line = f"{shown(address)}: {shown(error)}"
    if isinstance(error, NotPermitted):
        return f"{line}, which the bridge does not have there"
    if "certificate verify failed" in str(error):
        return f"{line}: its certificate is not of the authority in --control-ca"
    return line
