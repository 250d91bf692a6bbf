"""Readiness conditions, details and watchdogs, and their log lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tracker.observe.health import Condition, Health


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Yield the events that are logged during the test."""
    with capturedLogs() as captured:
        yield cast("list[Any]", captured)


def take_lines(logged: list[Any]) -> list[tuple[LogLevel, str]]:
    """Return level and text of the lines of ``tracker``, and clear the list."""
    events = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    logged.clear()
    return [(event["log_level"], formatEvent(event)) for event in events]


def test_health_without_conditions_is_ready() -> None:
    health = Health()
    assert health.ready
    assert health.reasons == {}


def test_new_condition_is_not_met(logged: list[Any]) -> None:
    health = Health()
    health.condition("redis")
    assert not health.ready
    assert health.reasons == {"redis": "starting"}
    assert take_lines(logged) == []


def test_met_condition_makes_health_ready(logged: list[Any]) -> None:
    health = Health()
    health.condition("redis").met()
    assert health.ready
    assert health.reasons == {}
    assert take_lines(logged) == [(LogLevel.info, "ready")]


def test_health_is_ready_when_the_last_condition_is_met(logged: list[Any]) -> None:
    health = Health()
    redis, consumer = health.condition("redis"), health.condition("consumer")
    redis.met()
    assert not health.ready
    assert health.reasons == {"consumer": "starting"}
    assert take_lines(logged) == []
    consumer.met()
    assert health.ready
    assert take_lines(logged) == [(LogLevel.info, "ready")]


def test_failing_condition_gives_its_reason(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    assert not health.ready
    assert health.reasons == {"redis": "connection refused"}
    assert take_lines(logged) == [(LogLevel.warn, "not ready: redis: connection refused")]


def test_condition_can_fail_and_be_met_again(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.met()
    take_lines(logged)
    condition.fails("connection lost")
    assert not health.ready
    assert take_lines(logged) == [(LogLevel.warn, "not ready: redis: connection lost")]
    condition.met()
    assert health.ready
    assert take_lines(logged) == [(LogLevel.info, "ready")]


def test_repeated_report_of_a_condition_is_not_logged(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    take_lines(logged)
    condition.fails("connection refused")
    assert take_lines(logged) == []
    condition.met()
    take_lines(logged)
    condition.met()
    assert take_lines(logged) == []
    assert health.ready


def test_changed_reason_of_a_condition_is_logged(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    condition.fails("wrong password")
    assert health.reasons == {"redis": "wrong password"}
    assert take_lines(logged) == [
        (LogLevel.warn, "not ready: redis: connection refused"),
        (LogLevel.warn, "not ready: redis: wrong password"),
    ]


def test_log_events_contain_name_and_reason_as_fields(logged: list[Any]) -> None:
    Health().condition("redis").fails("a reason with {braces}")
    (event,) = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    assert (event["name"], event["reason"]) == ("redis", "a reason with {braces}")
    assert formatEvent(event) == "not ready: redis: a reason with {braces}"


def test_listener_is_called_at_each_report() -> None:
    reports: list[str | None] = []
    condition = Condition(reports.append)
    condition.fails("connection refused")
    condition.fails("connection refused")
    condition.met()
    assert reports == ["connection refused", "connection refused", None]


def test_listener_of_a_condition_of_health_is_called(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    reports: list[str | None] = []
    condition.listen(reports.append)
    condition.fails("connection refused")
    assert reports == ["connection refused"]
    assert health.reasons == {"redis": "connection refused"}


@pytest.mark.parametrize("reason", ["connection refused", None])
def test_deferred_of_reported_fires_at_the_next_report_only(reason: str | None) -> None:
    condition = Condition()
    known: list[str | None] = []
    condition.reported().addCallback(known.append)
    condition.fails(reason) if reason else condition.met()
    condition.fails("another")
    assert known == [reason]


def test_report_after_cancellation_is_ignored() -> None:
    condition = Condition()
    known = condition.reported()
    known.addErrback(lambda failure: None)
    known.cancel()
    condition.met()


def test_change_of_the_returned_reasons_does_not_affect_health() -> None:
    health = Health()
    health.condition("redis")
    health.reasons.clear()
    assert health.reasons == {"redis": "starting"}


def test_two_health_objects_in_one_process_are_independent() -> None:
    one, other = Health(), Health()
    one.condition("redis")
    assert other.ready


@pytest.mark.parametrize("reported", [["starting"], ["down"], [None], ["down", None]])
def test_duplicate_condition_is_rejected(reported: list[str | None]) -> None:
    health = Health()
    condition = health.condition("redis")
    for reason in reported:
        condition.fails(reason) if reason else condition.met()
    with pytest.raises(ValueError, match="redis"):
        health.condition("redis")


def test_detail_is_reported_and_does_not_affect_readiness(logged: list[Any]) -> None:
    health = Health()
    figures = {"lag": 3}
    health.detail("lag", lambda: dict(figures))
    assert health.ready
    assert health.details == {"lag": {"lag": 3}}
    figures["lag"] = 4
    assert health.details == {"lag": {"lag": 4}}
    assert take_lines(logged) == []


def test_detail_can_have_the_name_of_a_condition_but_not_of_another_detail() -> None:
    health = Health()
    health.condition("redis")
    health.detail("redis", lambda: None)
    with pytest.raises(ValueError, match="redis"):
        health.detail("redis", lambda: None)


def test_watchdog_expires_unless_reset_or_suspended() -> None:
    clock = Clock()
    health = Health(clock.seconds)
    watchdog = health.watchdog("loop", 60)
    clock.advance(1000)
    assert health.ready
    watchdog.reset()
    clock.advance(60)
    assert health.stuck == []
    clock.advance(1)
    assert health.stuck == ["loop"]
    assert health.reasons == {"loop": "stuck: restart the process"}
    watchdog.reset()
    assert health.ready
    watchdog.suspend()
    clock.advance(1000)
    assert health.ready


def test_duplicate_watchdog_is_rejected() -> None:
    health = Health()
    health.watchdog("loop", 1)
    with pytest.raises(ValueError, match="duplicate watchdog: loop"):
        health.watchdog("loop", 1)


def test_reason_is_known_once_a_condition_fails() -> None:
    health = Health()
    health.condition("stream")
    condition = health.condition("redis")
    assert not health.reason_known
    condition.fails("Connection refused")
    assert health.reason_known
    condition.met()
    assert not health.reason_known
