"""Timely expiry of the commands that no instance has claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.commands.deadlines import end_expired
from tracker.commands.ledger import CommandLedger
from tracker.errors import Refused, Unavailable
from tracker.janitor.orphans import JANITOR, REPAIR
from tracker.keys import DEADLINES
from tracker.observe.malformedkeys import MalformedKeyLog
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.wording import counted

#: Seconds between two looks for expired commands.
LOOK_INTERVAL: Final = 1.0


class Expiry(RedisTimer):
    """Service that ends expired commands, which each round would find later.

    :param count: called with the number of commands that a look has ended.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, redis: RedisConnection, count: Callable[[int], None]
    ) -> None:
        super().__init__(clock, redis, LOOK_INTERVAL, self._look)
        self._redis = redis
        self._ledger = CommandLedger(clock, redis, JANITOR)
        self._count = count
        self._malformed_keys = MalformedKeyLog(clock, self._log)

    async def _look(self) -> None:
        try:
            ended = await end_expired(self._redis, self._ledger)
        except Unavailable as error:
            # The connection reports the outage.
            self._log.debug("expired commands not ended: {error}", error=error)
        except Refused as error:
            why = f"cannot be used: {error}. Commands expire at the next round"
            self._malformed_keys.report(DEADLINES, why, REPAIR)
        except Exception:  # noqa: BLE001 - an exception would stop the timer for good
            self._log.failure("expired commands not ended")
        else:
            if ended:
                self._count(ended)
                self._log.info("{commands} expired", commands=counted(ended, "command"))
