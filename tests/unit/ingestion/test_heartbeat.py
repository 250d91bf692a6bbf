"""The watchdog of an instance's heartbeat."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Unavailable
from tracker.ingestion import heartbeat
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.identity import Identity
from tracker.observe.health import Watchdog


def test_watchdog_expires_if_the_heartbeat_is_not_attempted() -> None:
    clock, redis = Clock(), FakeRedis()
    watchdog = Watchdog(heartbeat.WATCHDOG_TIMEOUT, clock.seconds)
    service = Heartbeat(
        clock,
        redis,  # type: ignore[arg-type]
        "one",
        {},
        on_owned=lambda: None,
        abort=lambda _: None,
        identity=Identity("here", "boot", 1, 1),
        watchdog=watchdog,
    )
    service.startService()
    for _ in range(10):  # Redis is connected, and does not reply in time
        redis.commands.pop()[1].errback(Unavailable("no reply within 4s"))
        clock.advance(heartbeat.INTERVAL)
    assert not watchdog.expired
    clock.advance(heartbeat.WATCHDOG_TIMEOUT + 1)
    assert watchdog.expired
    redis.commands.pop()[1].errback(Unavailable("too late"))
    clock.advance(heartbeat.INTERVAL)
    assert not watchdog.expired
