"""Log lines about malformed keys: at most one an hour for each, and rate-limited."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.observe.ratelimit import LimitedLog
from tracker.untrusted import MAX_LINE, shown

#: Seconds after which a key that is still malformed is reported again.
REPEATED_AFTER: Final = 3600.0
#: Keys that are remembered. With more keys than these, some are reported again sooner.
MAX_KEYS: Final = 1000


class MalformedKeyLog:
    """Logs keys that cannot be used, each at most once an hour.

    :param log: receives the lines.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._clock = clock
        self._reported: dict[str, float] = {}  # key → when; the oldest first
        self._lines = LimitedLog(clock, log)

    def report(self, key: str | bytes, why: object, action: str) -> None:
        """Log that a key is malformed, unless that was logged within the last hour.

        :param why: the problem, as a phrase.
        :param action: a remedy for the operator, as a sentence.
        """
        name, now = shown(key), self._clock.seconds()
        if now - self._reported.get(name, -REPEATED_AFTER) < REPEATED_AFTER:
            return
        logged = self._lines.warn(
            "{key}: {why}. {action}", key=name, why=shown(str(why), MAX_LINE), action=action
        )
        if not logged:
            return  # logged when its reader finds it again
        self._reported.pop(name, None)
        self._reported[name] = now
        if len(self._reported) > MAX_KEYS:
            del self._reported[next(iter(self._reported))]
