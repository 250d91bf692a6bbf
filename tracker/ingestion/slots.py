"""Report whether a process has connection slots left."""

from __future__ import annotations

from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from tracker.ingestion.admission import ConnectionLimiter
from tracker.observe.health import Condition

#: Seconds between two checks.
CHECK_INTERVAL: Final = 1.0
#: Seconds with free slots before the process is ready again. They limit how often the state
#: changes, and is logged, while the number of connections stays near the limit.
SETTLE_TIME: Final = 10.0


class SlotWatch(Service):
    """Reports that the process is not ready once its last slot is taken.

    The process is ready again when one percent of the slots is free and :data:`SETTLE_TIME` has
    passed.

    :param condition: met while slots are free.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limiter: ConnectionLimiter,
        condition: Condition,
    ) -> None:
        self._limiter = limiter
        self._condition = condition
        self._clock = clock
        self._settled_at = 0.0
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        """Start the checks."""
        super().startService()
        self._loop.start(CHECK_INTERVAL)

    def stopService(self) -> Deferred[None]:
        """Stop the checks."""
        super().stopService()
        self._loop.stop()
        return succeed(None)

    def figures(self) -> dict[str, Any]:
        """Return the total number of slots, the number in use, and figures of the shares."""
        limiter = self._limiter
        return {
            "slots": limiter.slots,
            "in_use": limiter.used,
            "per_address": limiter.shares.limit,
            "addresses_at_their_share": limiter.shares.used_up,
        }

    def _check(self) -> None:
        limiter = self._limiter
        now = self._clock.seconds()
        free = limiter.slots - limiter.used
        if limiter.ran_out or not free:
            limiter.ran_out = False
            self._settled_at = now + SETTLE_TIME
            self._condition.fails(f"all connection slots ({limiter.slots:,}) are in use")
        elif now >= self._settled_at and free * 100 >= limiter.slots:
            self._condition.met()
