"""The heartbeat of an instance, which shows that it is alive and which streams it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import asdict
from twisted.internet.defer import Deferred, TimeoutError, succeed  # noqa: A004
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker import __version__
from tracker.errors import Refused, Unavailable
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.identity import Identity
from tracker.ingestion.ownership import OwnedElsewhere, Ownership
from tracker.keys import heartbeat
from tracker.log.redis.heartbeats import EXPIRY
from tracker.observe.health import Watchdog
from tracker.position import iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.runtime.lifecycle import Abort

#: Seconds between two heartbeats.
INTERVAL: Final = 30
#: Seconds without an attempt after which the loop counts as stuck.
WATCHDOG_TIMEOUT: Final = 150.0
#: Seconds that a stop waits for Redis to delete the heartbeat.
WITHDRAWAL_TIMEOUT: Final = 2


class Heartbeat(RedisTimer):
    """Renews ``instance:heartbeat:{instance_id}`` while the instance is alive.

    :param gateways: stream → the gateway that appends to it.
    :param on_owned: called once, when it is certain that this process owns the instance ID.
    :param abort: called with the reason if another living process has the instance ID.
    :param control: returns the address of this instance's control port, if it has one now.
    :param identity: identity of this process; None: determine it.
    :param watchdog: reset at each attempt, also at those that fail.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        instance_id: str,
        gateways: Mapping[str, Gateway],
        *,
        on_owned: Callable[[], None],
        abort: Abort,
        control: Callable[[], str | None] = lambda: None,
        identity: Identity | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._renew)
        self.last_renewed = 0.0
        """Time of the last renewal, in seconds since 1970 (UTC); 0 before the first one."""
        identity = identity or Identity.of(os.getpid())
        self._clock = clock
        self._redis = redis
        self._key = heartbeat(instance_id)
        self._gateways = gateways
        self._on_owned = on_owned
        self._abort = abort
        self._facts: dict[str, Any] = {"started_at": "", "version": __version__}
        self._control = control
        self._process: dict[str, Any] = {} if identity is None else asdict(identity)
        self._ownership = Ownership(clock, redis, instance_id, identity)
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._owned = False

    def startService(self) -> None:
        """Write the heartbeat as soon as Redis is connected, then regularly."""
        self._facts["started_at"] = iso_milliseconds(int(self._clock.seconds() * 1000))
        super().startService()

    async def _withdraw(self, loop_ended: Deferred[None]) -> None:
        await loop_ended
        if self._owned:
            await self._redis.execute("DEL", self._key)

    def _not_withdrawn(self, failure: Failure) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("heartbeat not deleted; it expires within {seconds} s", seconds=EXPIRY)

    def stopService(self) -> Deferred[None]:
        """Delete the heartbeat, so that other processes need not wait for it to expire."""
        if not self.running:
            return succeed(None)
        self._watchdog.suspend()
        withdrawn = Deferred.fromCoroutine(self._withdraw(super().stopService()))
        return withdrawn.addTimeout(WITHDRAWAL_TIMEOUT, self._clock).addErrback(self._not_withdrawn)

    async def _renew(self) -> None:
        self._watchdog.reset()
        try:
            claims = not self._owned and await self._ownership.may_claim(self._value())
            if self._owned:
                await self._ownership.check()
            if (self._owned or claims) and self.running:
                await self._redis.execute("SET", self._key, self._value(), "EX", EXPIRY)
                self.last_renewed = self._clock.seconds()
                if claims:  # after a failure of SET, the ownership is checked again
                    self._owned = True
                    self._on_owned()
        except OwnedElsewhere as error:
            self._owned = False  # so that a stop does not delete the other's heartbeat
            self._abort(str(error))
        except (Refused, Unavailable) as error:
            # The connection reports the outage, and the next attempt follows anyway.
            self._log.debug("heartbeat not renewed: {error}", error=error)

    def _value(self) -> str:
        now: dict[str, Any] = {
            "connections": sum(gateway.connections for gateway in self._gateways.values()),
            "streams": sorted(self._gateways),
        }
        if (control := self._control()) is not None:
            now["control"] = control
        return json.dumps(self._facts | now | self._process)
