"""Rate limits for log lines that a peer can trigger."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

#: Default number of lines of one kind per minute.
MAX_LINES: Final = 10


class RateLimit:
    """Admits ``limit`` events in each ``period`` (seconds), and counts the suppressed ones."""

    def __init__(self, clock: IReactorTime, limit: int = MAX_LINES, period: float = 60.0) -> None:
        self._clock = clock
        self._limit = limit
        self._period = period
        self._period_ends = clock.seconds() + period
        self._admitted = 0
        self._suppressed = 0

    def admit(self) -> int | None:
        """Return None if the event is suppressed, else the number suppressed since the last one."""
        now = self._clock.seconds()
        if now >= self._period_ends:
            self._period_ends = now + self._period
            self._admitted = 0
        if self._admitted >= self._limit:
            self._suppressed += 1
            return None
        self._admitted += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class LimitedLog:
    """Log lines of one kind, at most :data:`MAX_LINES` a minute.

    A line that follows suppressed ones ends with their number. Each method returns True if the
    line was logged, False if it was suppressed. Its first argument is a format, see
    :class:`twisted.logger.Logger`.

    :param log: receives the lines.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self._log = log
        self._limit = RateLimit(clock)

    def info(self, line: str, /, **fields: object) -> bool:
        """Log a line at level info."""
        return self._emit(LogLevel.info, line, fields)

    def warn(self, line: str, /, **fields: object) -> bool:
        """Log a line at level warn."""
        return self._emit(LogLevel.warn, line, fields)

    def error(self, line: str, /, **fields: object) -> bool:
        """Log a line at level error."""
        return self._emit(LogLevel.error, line, fields)

    def failure(self, line: str, failure: Failure | None = None, /, **fields: object) -> bool:
        """Log a line at level critical with the traceback of ``failure``.

        :param failure: None for the exception that is being handled.
        """
        return self._emit(LogLevel.critical, line, {**fields, "log_failure": failure or Failure()})

    def _emit(self, level: Any, line: str, fields: dict[str, object]) -> bool:
        suppressed = self._limit.admit()
        if suppressed is None:
            return False
        more = f" (and {suppressed} more, not shown)" if suppressed else ""
        self._log.emit(level, line + "{more}", **fields, more=more)
        return True
