"""Delays between retries."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tracker.runtime.backoff import MAX_RETRY_AFTER, Backoff


def delays(random: float, count: int) -> list[float]:
    backoff = Backoff(Clock(), first_delay=1, max_delay=10, random=lambda: random)
    return [backoff.failed() for _ in range(count)]


def test_delay_doubles_up_to_its_limit() -> None:
    assert delays(0.0, 6) == [0.5, 1, 2, 4, 5, 5]
    assert delays(1.0, 6) == [1, 2, 4, 8, 10, 10]


def test_delay_stays_at_its_limit_after_thousands_of_failures() -> None:
    assert delays(1.0, 5000)[-1] == 10


def test_success_resets_the_delay_of_retries() -> None:
    backoff = Backoff(Clock(), first_delay=1, max_delay=10, random=lambda: 1.0)
    assert [backoff.failed(), backoff.failed(), backoff.failures] == [1, 2, 2]
    backoff.succeeded()
    assert (backoff.failures, backoff.left) == (0, 0)
    assert backoff.failed() == 1


def test_retry_after_is_added_to_the_delay() -> None:
    backoff = Backoff(Clock(), first_delay=1, max_delay=10, random=lambda: 0.0)
    assert backoff.failed(retry_after=30) == 30.5
    assert backoff.failed(retry_after=0) == 1
    assert backoff.failed(retry_after=1e9) == MAX_RETRY_AFTER + 2


def test_backoff_reports_the_time_left_until_the_next_attempt() -> None:
    clock = Clock()
    backoff = Backoff(clock, first_delay=4, random=lambda: 1.0)
    assert backoff.left == 0
    backoff.failed()
    clock.advance(3)
    assert backoff.left == 1
    clock.advance(3)
    assert backoff.left == 0


def test_wait_ends_when_the_delay_is_over() -> None:
    clock = Clock()
    backoff = Backoff(clock, first_delay=4, random=lambda: 1.0)
    assert backoff.wait().called
    backoff.failed()
    waiting = backoff.wait()
    clock.advance(3.9)
    assert not waiting.called
    clock.advance(0.1)
    assert waiting.called


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999])
def test_cancelled_wait_leaves_no_timer(random: float) -> None:
    clock = Clock()
    backoff = Backoff(clock, random=lambda: random)
    backoff.failed()
    waiting = backoff.wait()
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    assert not clock.getDelayedCalls()
