"""Waiting until the log confirms appends."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tracker.ingestion.confirmation import CHECK_INTERVAL, MAX_PER_TURN, Confirmation


@define
class Waiting:
    """A log that confirms when the test says so, and callers that wait for it."""

    clock: Clock = field(factory=Clock)
    confirms: bool = False
    confirmation: Confirmation = field(init=False)
    done: list[int] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.confirmation = Confirmation(self.clock, lambda: self.confirms)

    def wait(self, number: int) -> Deferred[None]:
        waiter = self.confirmation.wait()
        assert waiter is not None
        waiter.addCallbacks(lambda _: self.done.append(number), lambda _: None)
        return waiter


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_nobody_waits_while_the_log_confirms(waiting: Waiting) -> None:
    waiting.confirms = True
    assert waiting.confirmation.wait() is None
    assert not waiting.clock.getDelayedCalls()


def test_all_callers_go_on_in_their_order_once_the_log_confirms(waiting: Waiting) -> None:
    numbers = list(range(2 * MAX_PER_TURN + 1))
    for number in numbers:
        waiting.wait(number)
    waiting.clock.pump([CHECK_INTERVAL] * 3)
    assert waiting.done == []
    waiting.confirms = True
    waiting.wait(-1)
    waiting.clock.advance(CHECK_INTERVAL)
    assert waiting.done == [*numbers, -1]
    assert not waiting.clock.getDelayedCalls()


def test_cancelled_caller_leaves_no_trace(waiting: Waiting) -> None:
    first, second = waiting.wait(1), waiting.wait(2)
    first.cancel()
    assert waiting.confirmation.waiting == 1
    second.cancel()
    assert waiting.confirmation.waiting == 0
    assert not waiting.clock.getDelayedCalls()


def test_caller_that_another_one_cancels_does_not_go_on(waiting: Waiting) -> None:
    first, second = waiting.wait(1), waiting.wait(2)
    first.addCallback(lambda _: second.cancel())
    waiting.confirms = True
    waiting.clock.advance(CHECK_INTERVAL)
    assert waiting.done == [1]
    assert not waiting.clock.getDelayedCalls()
