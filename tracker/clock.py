"""The rule that tells wrong times of records from right ones.

A record says when it was taken; the log says when it arrived. A time after the arrival, or one
that is years older, is not the time of the record. Such a record is stored with its own time and a
mark; it is not part of the track of its device, and does not become the last position.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from attrs import frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.settings import duration

#: The time is later than the arrival by more than the tolerance.
AHEAD: Final = "ahead"
#: The time is too old.
OLD: Final = "old"
#: The time is too old, and right once 1,024 or 2,048 weeks are added: see :data:`ROLLOVER_WEEKS`.
ROLLOVER: Final = "rollover"
#: All kinds of wrong times.
CLOCK_ERRORS: Final = (AHEAD, OLD, ROLLOVER)

#: GPS satellites transmit the number of the week in 10 bits, so that it returned to 0 on
#: 1999-08-22 and on 2019-04-07 (IS-GPS-200, 20.3.3.3.1.1; weeks count from 1980-01-06). A receiver
#: that takes the number for one of an earlier cycle is behind by 1,024 weeks, or by twice as many.
ROLLOVER_WEEKS: Final = (1024, 2048)
#: Maximum age in seconds of a record after the correction of a rollover. It is more than the
#: default of :attr:`ClockRule.oldest`, because a device that has rolled over may also send records
#: that it kept for years. It is less than the age of clocks without a battery that start again:
#: 2000-01-01 plus 1,024 weeks is 2019-08-17, and 1970-01-01 plus 2,048 weeks is 2009-04-02.
MAX_ROLLOVER_AGE: Final = 5 * 365 * 86_400

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE: Final = 60_000
_WEEK: Final = 7 * 86_400_000
#: Length of ``2026-11-22T10:00``.
_TO_MINUTE: Final = 16


@frozen
class ClockRule:
    """The range of right times; each attribute is a command-line option of the same name."""

    clock_tolerance: float = duration(
        86_400,
        60,
        30 * 86_400,
        "Time by which the time of a record may be later than its arrival. A later one is "
        "stored and marked, and does not become the last position.",
    )
    oldest: float = duration(
        730 * 86_400,
        86_400,
        MAX_ROLLOVER_AGE,
        "Time by which the time of a record may be earlier than its arrival. An earlier one is "
        "stored and marked, and does not become the last position.",
        bare=False,
    )

    def error(self, timestamp: str, arrival: str) -> str | None:
        """Return the kind of error of a time, one of :data:`CLOCK_ERRORS`; None if it is right.

        :param timestamp: the time of the record, ISO 8601 UTC with milliseconds and Z.
        :param arrival: the time at which the record first arrived, in the same form.
        """
        earliest, latest = _right_times(arrival[:_TO_MINUTE], self.clock_tolerance, self.oldest)
        if earliest <= timestamp <= latest:
            return None
        return self._exact_error(_milliseconds(timestamp), _milliseconds(arrival))

    def _exact_error(self, time: int, arrival: int) -> str | None:
        latest = arrival + round(self.clock_tolerance * 1000)
        if time > latest:
            return AHEAD
        if time >= arrival - round(self.oldest * 1000):
            return None
        earliest = arrival - MAX_ROLLOVER_AGE * 1000
        corrected = (time + weeks * _WEEK for weeks in ROLLOVER_WEEKS)
        return ROLLOVER if any(earliest <= time <= latest for time in corrected) else OLD


#: The rule with the defaults of its options.
DEFAULT_CLOCKS: Final = ClockRule()


@lru_cache(maxsize=64)  # few minutes occur at a time
def _right_times(minute: str, clock_tolerance: float, oldest: float) -> tuple[str, str]:
    """Return the earliest and the latest time that are right for every arrival in a minute.

    Most records are between them, and cost two comparisons of text.
    """
    start = _milliseconds(f"{minute}:00.000Z")
    return (
        _text(start + _MINUTE - round(oldest * 1000)),
        _text(start + round(clock_tolerance * 1000)),
    )


def _milliseconds(text: str) -> int:
    since = datetime.fromisoformat(text) - _EPOCH
    return since // _MILLISECOND


def _text(milliseconds: int) -> str:
    return iso_milliseconds(min(max(0, milliseconds), MAX_TIMESTAMP_MS))
