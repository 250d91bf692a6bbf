"""Waits that a stop interrupts."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.task import Clock

from tracker.runtime.waits import Stopped, Waits


def begin(coroutine: Coroutine[Deferred[Any], Any, Any]) -> list[Any]:
    """Run a coroutine; return a list to which its result or exception is added at its end."""
    ended: list[Any] = []
    running = Deferred.fromCoroutine(coroutine)
    running.addCallbacks(ended.append, lambda failure: ended.append(failure.value))
    return ended


def test_wait_returns_the_result() -> None:
    deferred: Deferred[int] = Deferred()
    ended = begin(Waits(Clock()).result(deferred))
    assert not ended
    deferred.callback(3)
    assert ended == [3]


def test_wait_raises_the_failure() -> None:
    deferred: Deferred[int] = Deferred()
    ended = begin(Waits(Clock()).result(deferred))
    deferred.errback(ValueError())
    assert isinstance(ended[0], ValueError)


def test_wait_accepts_a_coroutine() -> None:
    async def answer() -> int:
        return 3

    assert begin(Waits(Clock()).result(answer())) == [3]


def test_stop_interrupts_all_waits() -> None:
    waits = Waits(Clock())
    one: Deferred[int] = Deferred()
    other: Deferred[int] = Deferred()
    ends = [begin(waits.result(one)), begin(waits.result(other)), begin(waits.sleep(10))]
    waits.stop()
    assert [type(end) for (end,) in ends] == [Stopped, Stopped, type(None)]
    assert waits.stopped


def test_wait_after_a_stop_ends_at_once() -> None:
    clock = Clock()
    waits = Waits(clock)
    waits.stop()
    cancelled: list[Any] = []
    (end,) = begin(waits.result(Deferred(cancelled.append)))
    assert isinstance(end, Stopped)
    assert len(cancelled) == 1
    assert begin(waits.sleep(10)) == [None]
    assert not clock.getDelayedCalls()


def test_interrupted_wait_raises_stopped_for_any_exception() -> None:
    waits = Waits(Clock())

    def cancel(deferred: Deferred[Any]) -> None:
        deferred.errback(ConnectingCancelledError(None))

    ended = begin(waits.result(Deferred(cancel)))
    waits.stop()
    assert isinstance(ended[0], Stopped)


def test_wait_that_another_party_cancels_raises_cancelled_error() -> None:
    deferred: Deferred[int] = Deferred()
    ended = begin(Waits(Clock()).result(deferred))
    deferred.cancel()
    assert type(ended[0]) is CancelledError


def test_sleep_ends_after_its_time() -> None:
    clock = Clock()
    ended = begin(Waits(clock).sleep(10))
    clock.advance(9)
    assert not ended
    clock.advance(1)
    assert ended == [None]


@pytest.mark.parametrize("fails", [False, True])
def test_stop_does_not_cancel_finished_waits(fails: bool) -> None:
    cancelled: list[Any] = []
    waits = Waits(Clock())
    deferred: Deferred[Any] = Deferred(cancelled.append)
    begin(waits.result(deferred))
    deferred.errback(ValueError()) if fails else deferred.callback(None)
    waits.stop()
    assert not cancelled
