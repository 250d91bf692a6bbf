"""Readiness: which conditions hold, and what is told when that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tracker.observe.health import Condition, Health


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The events that are logged during the test."""
    with capturedLogs() as captured:
        yield cast("list[Any]", captured)


def told(logged: list[Any]) -> list[tuple[LogLevel, str]]:
    """Level and text of what ``tracker`` has logged, which is then forgotten."""
    events = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    logged.clear()
    return [(event["log_level"], formatEvent(event)) for event in events]


def test_without_conditions_nothing_is_in_the_way() -> None:
    health = Health()
    assert health.ready
    assert health.reasons == {}


def test_a_condition_is_not_met_before_it_is_reported_to_be(logged: list[Any]) -> None:
    health = Health()
    health.condition("redis")
    assert not health.ready
    assert health.reasons == {"redis": "starting"}
    assert told(logged) == []


def test_a_condition_that_is_met_makes_it_ready(logged: list[Any]) -> None:
    health = Health()
    health.condition("redis").met()
    assert health.ready
    assert health.reasons == {}
    assert told(logged) == [(LogLevel.info, "ready")]


def test_it_is_ready_when_the_last_condition_is_met(logged: list[Any]) -> None:
    health = Health()
    redis, consumer = health.condition("redis"), health.condition("consumer")
    redis.met()
    assert not health.ready
    assert health.reasons == {"consumer": "starting"}
    assert told(logged) == []
    consumer.met()
    assert health.ready
    assert told(logged) == [(LogLevel.info, "ready")]


def test_a_failing_condition_gives_its_reason(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    assert not health.ready
    assert health.reasons == {"redis": "connection refused"}
    assert told(logged) == [(LogLevel.warn, "not ready: redis: connection refused")]


def test_a_condition_may_be_lost_and_met_again(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.met()
    told(logged)
    condition.fails("connection lost")
    assert not health.ready
    assert told(logged) == [(LogLevel.warn, "not ready: redis: connection lost")]
    condition.met()
    assert health.ready
    assert told(logged) == [(LogLevel.info, "ready")]


def test_a_repetition_is_not_logged(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    told(logged)
    condition.fails("connection refused")
    assert told(logged) == []
    condition.met()
    told(logged)
    condition.met()
    assert told(logged) == []
    assert health.ready


def test_another_reason_is_logged(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    condition.fails("connection refused")
    condition.fails("wrong password")
    assert health.reasons == {"redis": "wrong password"}
    assert told(logged) == [
        (LogLevel.warn, "not ready: redis: connection refused"),
        (LogLevel.warn, "not ready: redis: wrong password"),
    ]


def test_events_carry_name_and_reason_as_fields(logged: list[Any]) -> None:
    Health().condition("redis").fails("what {braces} say")
    (event,) = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    assert (event["name"], event["reason"]) == ("redis", "what {braces} say")
    assert formatEvent(event) == "not ready: redis: what {braces} say"


def test_a_listener_is_called_at_each_report() -> None:
    reports: list[str | None] = []
    condition = Condition(reports.append)
    condition.fails("connection refused")
    condition.fails("connection refused")
    condition.met()
    assert reports == ["connection refused", "connection refused", None]


def test_listener_added_to_a_condition_of_health_is_called_as_well(logged: list[Any]) -> None:
    health = Health()
    condition = health.condition("redis")
    reports: list[str | None] = []
    condition.listen(reports.append)
    condition.fails("connection refused")
    assert reports == ["connection refused"]
    assert health.reasons == {"redis": "connection refused"}


@pytest.mark.parametrize("reason", ["connection refused", None])
def test_the_next_report_is_returned_once(reason: str | None) -> None:
    condition = Condition()
    known: list[str | None] = []
    condition.reported().addCallback(known.append)
    condition.fails(reason) if reason else condition.met()
    condition.fails("another")
    assert known == [reason]


def test_a_report_that_nobody_waits_for_is_ignored() -> None:
    condition = Condition()
    known = condition.reported()
    known.addErrback(lambda failure: None)
    known.cancel()
    condition.met()


def test_the_reasons_are_a_copy() -> None:
    health = Health()
    health.condition("redis")
    health.reasons.clear()
    assert health.reasons == {"redis": "starting"}


def test_two_processes_in_one_are_apart() -> None:
    one, other = Health(), Health()
    one.condition("redis")
    assert other.ready


@pytest.mark.parametrize("reported", [["starting"], ["down"], [None], ["down", None]])
def test_a_name_is_given_once(reported: list[str | None]) -> None:
    health = Health()
    condition = health.condition("redis")
    for reason in reported:
        condition.fails(reason) if reason else condition.met()
    with pytest.raises(ValueError, match="redis"):
        health.condition("redis")


def test_details_are_told_and_decide_nothing(logged: list[Any]) -> None:
    health = Health()
    figures = {"lag": 3}
    health.detail("lag", lambda: dict(figures))
    assert health.ready
    assert health.details == {"lag": {"lag": 3}}
    figures["lag"] = 4
    assert health.details == {"lag": {"lag": 4}}
    assert told(logged) == []


def test_a_detail_may_have_the_name_of_a_condition_but_of_no_other_detail() -> None:
    health = Health()
    health.condition("redis")
    health.detail("redis", lambda: None)
    with pytest.raises(ValueError, match="redis"):
        health.detail("redis", lambda: None)


def test_a_pulse_that_stops_is_stuck_and_one_that_rests_is_not() -> None:
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
    assert health.reasons == {"loop": "is stuck, and needs a restart"}
    watchdog.reset()
    assert health.ready
    watchdog.suspend()
    clock.advance(1000)
    assert health.ready


def test_two_pulses_of_one_name_are_a_mistake() -> None:
    health = Health()
    health.watchdog("loop", 1)
    with pytest.raises(ValueError, match="two watchdogs of one name: loop"):
        health.watchdog("loop", 1)


def test_it_is_known_what_it_waits_for_once_a_condition_has_a_reason() -> None:
    health = Health()
    health.condition("stream")
    condition = health.condition("redis")
    assert not health.reason_known
    condition.fails("Connection refused")
    assert health.reason_known
    condition.met()
    assert not health.reason_known
