"""Calls at an interval, and their end at a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from tracker.redis.timer import RedisTimer


class Connected:
    """A usable connection."""

    def when_connected(self) -> Deferred[None]:
        return succeed(None)


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    """Log events of the test."""
    events: list[LogEvent] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def test_stop_waits_for_the_call_in_progress() -> None:
    doing: list[Deferred[None]] = []

    def do() -> Deferred[None]:
        doing.append(Deferred())
        return doing[-1]

    timer = RedisTimer(Clock(), Connected(), 1.0, do)
    timer.startService()
    stopped: list[object] = []
    timer.stopService().addBoth(stopped.append)
    assert stopped == []
    doing[0].callback(None)
    assert stopped == [None]


def test_cancelled_stop_logs_no_error(logged: Sequence[LogEvent]) -> None:
    doing: Deferred[None] = Deferred()
    timer = RedisTimer(Clock(), Connected(), 1.0, lambda: doing)
    timer.startService()
    stopped = timer.stopService()
    ended: list[object] = []
    stopped.addErrback(lambda failure: ended.append(failure.type))
    stopped.cancel()
    assert ended == [CancelledError]
    doing.callback(None)  # later than the cancellation
    assert [event for event in logged if "log_failure" in event] == []
