"""Watchdogs of the roles: a role is stuck if its loop hangs, and not while it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.integration.bridge.bridges import response
from tests.integration.processing.processors import STREAM, append, lag
from tests.servers import RedisServer, free_port
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.bridge import responses
from tracker.bridge.service import BridgePace, Directus, bridge_role
from tracker.bridge.table import CommandTable
from tracker.commands import delivery
from tracker.commands.shared import Timing
from tracker.control.pool import Credentials
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.service import Commands, Devices, ingest_role
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.reader import RedisReader
from tracker.observe.health import Health
from tracker.processing import consumer
from tracker.processing.service import process_role

CONSUMER = "consumer"
COMMANDS = "commands"
ROW = "00000000-0000-4000-8000-000000000001"


class ManualTime:
    """A clock for watchdogs that advances when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Running:
    """A role on a real server."""

    def __init__(self, build: Callable[[Any, Health, Callable[[str], None]], Any]) -> None:
        from twisted.internet import reactor

        self.time = ManualTime()
        self.health = Health(self.time)
        self.aborted: list[str] = []
        self._role = build(reactor, self.health, self.aborted.append)
        self._role.startService()

    async def ready(self) -> None:
        await until(lambda: self.health.ready, "ready")

    async def stop(self) -> None:
        await self._role.stopService()


def processing(redis: RedisServer, sink: FakeSink) -> Running:
    return Running(
        lambda reactor, health, abort: process_role(
            reactor=reactor,
            address=redis.address,
            vendors={STREAM: "teltonika"},
            consumer="one",
            sink=sink,
            health=health,
            abort=abort,
            options=consumer.BatchOptions(batch_delay=0),
        )
    )


def ingesting(redis: RedisServer) -> Running:
    return Running(
        lambda reactor, health, abort: ingest_role(
            reactor,
            redis.address,
            "one",
            ports=[],
            streams={},
            devices=Devices(),
            commands=Commands(Timing()),
            limiter=ConnectionLimiter(reactor, Limits()),
            kept=KeptMemory(Limits().kept_memory),
            health=health,
            abort=abort,
        )
    )


@ensureDeferred
async def test_sink_that_never_replies_makes_the_processor_stuck(redis: RedisServer) -> None:
    append(redis, 5)
    sink = FakeSink(busy=Deferred())
    running = processing(redis, sink)
    await running.ready()
    await until(lambda: lag(redis) == 5, "entries are read")
    running.time.advance(consumer.WATCHDOG_TIMEOUT)
    assert running.health.stuck == []
    await until(
        lambda: redis.client.xpending(STREAM, "processor")["pending"], "entries are pending"
    )
    running.time.advance(consumer.WATCHDOG_TIMEOUT + 1)
    assert running.health.stuck == [CONSUMER]
    assert sink.busy is not None
    sink.busy.callback(None)
    await until(lambda: not running.health.stuck, "the loop continues")
    await running.stop()
    running.time.advance(10 * consumer.WATCHDOG_TIMEOUT)
    assert running.health.stuck == []


@ensureDeferred
async def test_processor_waits_for_a_sink_that_fails_for_hours(redis: RedisServer) -> None:
    append(redis, 5)
    sink = FakeSink(failures=[ConnectionError("the database is down")] * 3)
    running = processing(redis, sink)
    for left in (2, 1, 0):
        await until(lambda left=left: len(sink.failures) == left, "retried")  # type: ignore[misc]
        assert running.health.stuck == []
        running.time.advance(consumer.WATCHDOG_TIMEOUT - 1)
    await until(lambda: lag(redis) == 0, "stored")
    assert running.health.stuck == []
    await running.stop()


@pytest.mark.parametrize("role", ["ingest", "process"])
@ensureDeferred
async def test_roles_wait_for_redis_for_hours(role: str, redis: RedisServer) -> None:
    running = ingesting(redis) if role == "ingest" else processing(redis, FakeSink())
    name = COMMANDS if role == "ingest" else CONSUMER
    await running.ready()
    redis.kill()
    await until(lambda: not running.health.ready, "not ready")
    running.time.advance(10_000)
    await until(lambda: name not in running.health.stuck, "loop waits")
    running.time.advance(10_000)
    assert name not in running.health.stuck
    await running.stop()


@ensureDeferred
async def test_loop_that_has_failed_is_reported_as_stuck(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = ingesting(redis)
    await running.ready()
    running.time.advance(delivery.WATCHDOG_TIMEOUT - 1)
    assert running.health.stuck == []

    async def fails(*_: object) -> None:
        raise RuntimeError("failure")

    monkeypatch.setattr(RedisReader, "read", fails)
    redis.client.xadd("commands:outbound:one", {"command_id": "x"})  # ends the read under way
    await until(lambda: "commands" in running.health.reasons, "loop failed")
    running.time.advance(delivery.WATCHDOG_TIMEOUT + 1)
    assert COMMANDS in running.health.stuck
    await running.stop()


def bridging(redis: RedisServer) -> Running:
    """Run a bridge whose Directus is not reachable."""
    directus = Directus(f"http://127.0.0.1:{free_port()}", "token")
    pace = BridgePace()

    def build(reactor: Any, health: Health, abort: Callable[[str], None]) -> Any:
        address = redis.address
        return bridge_role(
            reactor,
            address,
            directus,
            hook=None,
            name="one",
            credentials=Credentials(),
            pace=pace,
            health=health,
            abort=abort,
        )

    return Running(build)


@ensureDeferred
async def test_bridge_waits_for_directus_for_hours(redis: RedisServer) -> None:
    running = bridging(redis)
    redis.client.xadd("commands:responses", response(ROW, "responded"))
    for name in ("responses", "commands", "devices"):
        await until(
            lambda name=name: running.health.reasons.get(name) not in (None, "starting"),  # type: ignore[misc]
            f"{name}: Directus is unreachable",
        )
    for _ in range(3):
        running.time.advance(10_000)
        await until(lambda: not running.health.stuck, "waiting or retrying")
    await running.stop()
    running.time.advance(10_000)
    assert running.health.stuck == []


@ensureDeferred
async def test_bridge_is_stuck_if_responses_are_never_reported(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing: list[Deferred[None]] = []

    def never(*_: object) -> Deferred[None]:
        writing.append(Deferred())
        return writing[-1]

    monkeypatch.setattr(CommandTable, "write", never)
    running = bridging(redis)
    redis.client.xadd("commands:responses", response(ROW, "responded"))
    await until(lambda: writing, "the response is being written")
    running.time.advance(responses.WATCHDOG_TIMEOUT)
    assert "responses" not in running.health.stuck
    running.time.advance(1)
    assert "responses" in running.health.stuck
    await running.stop()
