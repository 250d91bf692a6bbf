"""Metrics and log lines about refusals and errors of an HTTP port."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from tracker.net.refusals import Refusal
from tracker.net.reports import HTTPReports
from tracker.observe.ratelimit import MAX_LINES


def test_every_refusal_is_counted_and_some_are_logged() -> None:
    metrics_registry = CollectorRegistry()
    reports = HTTPReports(clock := Clock(), "console", "console", metrics_registry)
    with capturedLogs() as logged:
        for refusal in Refusal:
            for _ in range(MAX_LINES):
                reports.refused(refusal, "192.0.2.1:40000", "the request is malformed")
        clock.advance(60)
        reports.refused(Refusal.ADDRESS, "192.0.2.2:40000", "too many connections (address)")
    assert len(logged) == MAX_LINES + 1
    suppressed = MAX_LINES * (len(Refusal) - 1)
    assert formatEvent(logged[-1]) == (
        "console: refused 192.0.2.2:40000: too many connections (address) "
        f"(and {suppressed} more, not shown)"
    )
    for refusal in Refusal:
        counted = metrics_registry.get_sample_value(
            "tracker_console_refused_total", {"reason": refusal.value}
        )
        assert counted == MAX_LINES + (refusal is Refusal.ADDRESS)


def test_errors_and_failed_requests_have_separate_rate_limits() -> None:
    reports = HTTPReports(Clock(), "console", "console")
    with capturedLogs() as logged:
        for _ in range(3 * MAX_LINES):
            reports.failed(Failure(ValueError("an error")))
            reports.request_failed("Redis: " + "x" * 10_000)
    assert sum("log_failure" in event for event in logged) == MAX_LINES
    assert len(logged) == 2 * MAX_LINES
    assert max(len(formatEvent(event) or "") for event in logged) < 1000
