"""Rate limits and rate-limited log lines."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent

from tracker.observe.ratelimit import MAX_LINES, LimitedLog, RateLimit


def admitted(limit: RateLimit, events: int) -> list[int | None]:
    """Return the results of ``events`` calls at the same time."""
    return [limit.admit() for _ in range(events)]


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_events_over_the_limit_are_suppressed(limit: int) -> None:
    assert admitted(RateLimit(Clock(), limit, 60), limit + 2) == [0] * limit + [None, None]


def test_limit_of_zero_suppresses_all_events() -> None:
    clock = Clock()
    limit = RateLimit(clock, 0, 60)
    assert admitted(limit, 2) == [None, None]
    clock.advance(60)
    assert admitted(limit, 2) == [None, None]


def test_first_event_of_a_period_returns_the_number_suppressed() -> None:
    clock = Clock()
    limit = RateLimit(clock, 2, 60)
    assert admitted(limit, 5) == [0, 0, None, None, None]
    clock.advance(60)
    assert admitted(limit, 4) == [3, 0, None, None]
    clock.advance(60)
    assert limit.admit() == 2


def test_number_suppressed_is_kept_until_the_next_admitted_event() -> None:
    clock = Clock()
    limit = RateLimit(clock, 1, 60)
    assert admitted(limit, 3) == [0, None, None]
    clock.advance(3600)
    assert admitted(limit, 2) == [2, None]


def test_period_ends_exactly_after_its_length() -> None:
    clock = Clock()
    limit = RateLimit(clock, 1, 60)
    assert limit.admit() == 0
    clock.advance(59.999)
    assert limit.admit() is None
    clock.advance(0.001)
    assert limit.admit() == 1


def test_first_period_begins_at_construction() -> None:
    clock = Clock()
    clock.advance(1_000)
    limit = RateLimit(clock, 1, 60)
    clock.advance(59)
    assert limit.admit() == 0
    clock.advance(1)
    assert limit.admit() == 0


def test_later_period_begins_with_its_first_event() -> None:
    clock = Clock()
    limit = RateLimit(clock, 1, 60)
    clock.advance(90)
    assert limit.admit() == 0
    clock.advance(59)
    assert limit.admit() is None
    clock.advance(1)
    assert limit.admit() == 1


def test_unused_admissions_do_not_accumulate() -> None:
    clock = Clock()
    limit = RateLimit(clock, 2, 60)
    clock.advance(600)
    assert admitted(limit, 3) == [0, 0, None]


def test_rate_limits_are_independent() -> None:
    clock = Clock()
    one, other = RateLimit(clock, 1, 60), RateLimit(clock, 1, 60)
    assert admitted(one, 2) == [0, None]
    assert admitted(other, 2) == [0, None]


def test_log_line_gives_the_number_of_suppressed_lines_before_it() -> None:
    clock = Clock()
    limited = LimitedLog(clock, Logger("tracker.test"))
    with capturedLogs() as captured:
        logged = [limited.warn("{peer}: refused", peer=str(number)) for number in range(12)]
        clock.advance(60)
        limited.warn("{peer}: refused", peer="last")
        limited.warn("{peer}: refused", peer="later")
    assert logged == [True] * MAX_LINES + [False] * 2
    assert [formatEvent(event) for event in cast("list[Any]", captured)] == [
        *(f"{number}: refused" for number in range(MAX_LINES)),
        "last: refused (and 2 more, not shown)",
        "later: refused",
    ]


def test_log_line_has_the_level_of_its_method_and_its_fields() -> None:
    log = Logger("tracker.test")
    with capturedLogs() as captured:
        LimitedLog(Clock(), log).info("{line}", line="{braces}")
        LimitedLog(Clock(), log).warn("a")
        LimitedLog(Clock(), log).error("b")
    events = cast("list[Any]", captured)
    assert [event["log_level"] for event in events] == [
        LogLevel.info,
        LogLevel.warn,
        LogLevel.error,
    ]
    assert events[0]["line"] == "{braces}"
    assert formatEvent(events[0]) == "{braces}"


def test_failure_is_logged_with_its_traceback() -> None:
    with capturedLogs() as captured:
        try:
            raise ValueError("a fault")
        except ValueError:
            LimitedLog(Clock(), Logger("tracker.test")).failure("{port}: internal error", port="x")
    (event,) = cast("list[Any]", captured)
    assert event["log_level"] is LogLevel.critical
    assert event["log_failure"].getErrorMessage() == "a fault"
    assert formatEvent(event) == "x: internal error"
