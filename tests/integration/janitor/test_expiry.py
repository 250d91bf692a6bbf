"""Expiry of commands between two rounds of a janitor, on a real server and in real time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tests.system.commands import responses, statuses
from tests.waiting import until
from tracker.command import Command
from tracker.commands.ledger import CommandLedger
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.keys import DEADLINES
from tracker.observe.health import Health
from tracker.runtime.lifecycle import Role

DEVICE = "356307042441013"
EXPIRED = {"result": "expired"}


@pytest.fixture
def metrics_registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest_twisted.async_yield_fixture
async def janitor(redis: RedisServer, metrics_registry: CollectorRegistry) -> AsyncIterator[Role]:
    """Yield a janitor whose next round is an hour away."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    role = janitor_role(
        reactor,
        redis.address,
        [],
        Retention(),
        commands_wait=True,
        interval=3600.0,
        health=Health(),
        metrics_registry=metrics_registry,
    )
    role.startService()
    name = "tracker_janitor_rounds_total"
    await until(lambda: metrics_registry.get_sample_value(name), "the first round has ended")
    yield role
    await role.stopService()


@pytest.fixture
def ledger(connected: Connected) -> CommandLedger:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    return CommandLedger(reactor, connected.connection, "one")


def command(command_id: str, expires_in: float) -> Command:
    return Command(command_id, DEVICE, "getinfo", int((time.time() + expires_in) * 1000))


@ensureDeferred
async def test_janitor_ends_a_waiting_command_within_two_seconds_of_its_expiry(
    janitor: Role, ledger: CommandLedger, redis: RedisServer, metrics_registry: CollectorRegistry
) -> None:
    early, late = command("early", 0.5), command("late", 600)
    await ledger.submit(early)
    await ledger.submit(late)
    await until(lambda: statuses(redis), "the command has expired")
    ((_, (response,)),) = responses(redis).items()
    assert (response["command_id"], response["status"]) == ("early", "expired")
    delay = datetime.fromisoformat(response["at"]).timestamp() - early.expires_at / 1000
    assert 0 <= delay < 2
    assert metrics_registry.get_sample_value("tracker_janitor_commands_total", EXPIRED) == 1


@ensureDeferred
async def test_index_that_cannot_be_read_is_reported_once(
    janitor: Role, ledger: CommandLedger, redis: RedisServer
) -> None:
    redis.client.set(DEADLINES, "x")
    with capturedLogs() as events:
        await until(
            lambda: any(DEADLINES in str(formatEvent(event)) for event in events), "it is reported"
        )
        redis.client.delete(DEADLINES)
        await ledger.submit(command("c1", 0.1))
        await until(lambda: statuses(redis), "the command has expired")
    lines = [str(formatEvent(event)) for event in events]
    assert sum(DEADLINES in line for line in lines) == 1
