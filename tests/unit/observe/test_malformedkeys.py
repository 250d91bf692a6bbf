"""Log lines about malformed keys of Redis."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent

from tracker.observe.malformedkeys import MAX_KEYS, REPEATED_AFTER, MalformedKeyLog
from tracker.observe.ratelimit import MAX_LINES


def test_malformed_key_is_logged_once_an_hour() -> None:
    clock = Clock()
    log = MalformedKeyLog(clock, Logger())
    with capturedLogs() as logged:
        for _ in range(3):
            log.report("one", "is a hash", "Delete it.")
            log.report("two", "is a hash", "Delete it.")
        clock.advance(REPEATED_AFTER)
        log.report("one", "is a hash", "Delete it.")
    assert [event["key"] for event in logged] == ["one", "two", "one"]
    assert formatEvent(logged[0]) == "one: is a hash. Delete it."


def test_lines_are_limited_in_number_and_length() -> None:
    clock = Clock()
    log = MalformedKeyLog(clock, Logger())
    with capturedLogs() as logged:
        for number in range(10 * MAX_LINES):
            log.report(f"{number}\n" + "x" * 100_000, "y\n" * 100_000, "Delete it.")
    assert len(logged) == MAX_LINES
    assert all("\n" not in formatEvent(event) for event in logged)
    assert all(len(formatEvent(event)) < 2000 for event in logged)


def test_suppressed_key_is_logged_later() -> None:
    clock = Clock()
    log = MalformedKeyLog(clock, Logger())
    with capturedLogs() as logged:
        for _ in range(3):
            for number in range(2 * MAX_LINES):
                log.report(str(number), "is a hash", "Delete it.")
            clock.advance(60)
    assert {event["key"] for event in logged} == set(map(str, range(2 * MAX_LINES)))


def test_number_of_remembered_keys_is_limited() -> None:
    clock = Clock()
    log = MalformedKeyLog(clock, Logger())
    for number in range(MAX_KEYS + 100):
        log.report(str(number), "is a hash", "Delete it.")
        clock.advance(60)
    assert len(log._reported) <= MAX_KEYS
