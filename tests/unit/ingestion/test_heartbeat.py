"""The heartbeat of an instance: whose it is, and when it counts as stuck."""

from __future__ import annotations

import os
import subprocess

import pytest
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Unavailable
from tracker.ingestion import heartbeat
from tracker.ingestion.heartbeat import Heartbeat
from tracker.ingestion.identity import Identity
from tracker.observe.health import Pulse


def me() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None
    return identity


def test_a_process_is_told_from_all_others() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        found = Identity.of(other.pid)
        assert found is not None
        assert found != me()
        assert found == Identity.of(other.pid)
        assert found.is_beside(me())
        other.kill()
    assert Identity.of(other.pid) != found


@pytest.mark.parametrize(
    "beat",
    [
        *(b"", b"{}", b"[1]", b"no json", b'{"host": "x"}', b"[" * 100_000, b"9" * 3_000_000),
        b'{"host": "x", "boot": "y", "pid": "../self", "began": 1}',
        b'{"host": "x", "boot": "y", "pid": 1e999, "began": 1}',
        b'{"host": "x", "boot": "y", "pid": true, "began": 1}',
        b'{"host": ["x"], "boot": "y", "pid": 1, "began": 1}',
        b'{"host": "' + b"x" * 1000 + b'", "boot": "y", "pid": 1, "began": 1}',
    ],
    ids=lambda beat: repr(beat[-30:]),
)
def test_a_heartbeat_need_not_say_whose_it_is(beat: bytes) -> None:
    assert Identity.in_heartbeat(beat) is None


def test_a_heartbeat_is_stuck_when_redis_is_not_even_asked() -> None:
    clock, redis = Clock(), FakeRedis()
    pulse = Pulse(heartbeat.PULSE_TIMEOUT, clock.seconds)
    service = Heartbeat(
        clock,
        redis,  # type: ignore[arg-type]
        "one",
        {},
        begun=lambda: None,
        abort=lambda _: None,
        identity=Identity("here", "boot", 1, 1),
        pulse=pulse,
    )
    service.startService()
    for _ in range(10):  # Redis is there, and answers nothing in time
        redis.commands.pop()[1].errback(Unavailable("no answer within 4 s"))
        clock.advance(heartbeat.INTERVAL)
    assert not pulse.stuck
    clock.advance(heartbeat.PULSE_TIMEOUT + 1)
    assert pulse.stuck
    redis.commands.pop()[1].errback(Unavailable("too late"))
    clock.advance(heartbeat.INTERVAL)
    assert not pulse.stuck
