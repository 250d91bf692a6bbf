"""The readiness of a process whose connection slots are used up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.slots import CHECK_INTERVAL, SETTLE_TIME, SlotWatch
from tracker.limits import Limits
from tracker.observe.health import Health


@define
class Watched:
    clock: Clock = field(factory=Clock)
    health: Health = field(factory=Health)
    limiter: ConnectionLimiter = field(init=False)
    watch: SlotWatch = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.limiter = ConnectionLimiter(
            self.clock, Limits(connections=200, connection_rate_per_address=1000)
        )
        report = self.health.condition("connections")
        self.watch = SlotWatch(self.clock, self.limiter, report)
        self.watch.startService()

    def take(self, count: int) -> None:
        for _ in range(count):
            assert self.limiter.reserve() is None

    def release(self, count: int) -> None:
        for _ in range(count):
            self.limiter.release()

    def ready_after(self, seconds: float) -> bool:
        self.clock.pump([CHECK_INTERVAL] * int(seconds / CHECK_INTERVAL))
        return self.health.ready


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.watch.stopService()
    assert made.clock.getDelayedCalls() == []


def test_process_is_ready_until_its_last_slot_is_taken(watched: Watched) -> None:
    assert watched.health.ready
    watched.take(199)
    assert watched.ready_after(60)
    watched.take(1)
    assert not watched.ready_after(CHECK_INTERVAL)
    assert not watched.ready_after(60)


def test_process_is_ready_again_when_one_percent_of_the_slots_is_free(watched: Watched) -> None:
    watched.take(200)
    assert not watched.ready_after(60)
    watched.release(1)
    assert not watched.ready_after(60)
    watched.release(1)
    assert watched.ready_after(SETTLE_TIME)


def test_readiness_does_not_flap_at_the_limit(watched: Watched) -> None:
    watched.take(199)
    for _ in range(100):  # between two checks
        watched.take(1)
        watched.release(3)
        assert not watched.ready_after(SETTLE_TIME / 2)
        watched.take(2)
    watched.release(2)
    assert watched.ready_after(SETTLE_TIME)


def test_address_at_its_share_is_a_detail_and_does_not_affect_readiness(watched: Watched) -> None:
    while watched.limiter.admit("192.0.2.1") is None:
        pass
    assert watched.ready_after(60)
    assert watched.watch.figures() == {
        "slots": 200,
        "in_use": 180,
        "per_address": 180,
        "addresses_at_their_share": 1,
    }
