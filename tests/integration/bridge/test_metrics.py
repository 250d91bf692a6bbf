"""What a whole bridge counts, between a real Redis and the double of Directus over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
import treq
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from tests.integration.bridge.bridges import IMEI, Bridges
from tests.servers import RedisServer, free_port
from tests.unit.bridge.double import BRIDGE_TOKEN
from tests.waiting import until
from tracker.bridge.schema import SECRET_HEADER
from tracker.bridge.service import BridgePace, Directus, Hook, bridge_role
from tracker.control.pool import Credentials
from tracker.observe.health import Health

KEY = "00000000-0000-4000-8000-{:012}"
FUTURE = "2096-11-22T10:00:00.000Z"
PAST = "2016-11-22T10:00:00.000Z"


class Watched:
    """A bridge that is requests for its metrics, and looks often."""

    def __init__(self, bridges: Bridges) -> None:
        self.bridges = bridges
        self.metrics_registry = CollectorRegistry()
        self.port = free_port()
        reactor = bridges.reactor
        endpoint = TCP4ServerEndpoint(reactor, self.port, interface="127.0.0.1")
        self.role = bridge_role(
            reactor,
            bridges.redis.address,
            Directus(f"http://127.0.0.1:{bridges.number}", BRIDGE_TOKEN),
            hook=Hook("--webhook", endpoint, "secret"),
            name="this",
            credentials=Credentials(),
            pace=BridgePace(poll_commands=0.2),
            health=Health(),
            abort=lambda reason: None,
            metrics_registry=self.metrics_registry,
        )

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics_registry.get_sample_value(f"tracker_{name}", labels)
        assert found is not None, (name, labels)
        return found

    def add(self, number: int, **columns: Any) -> str:
        """A row of ``commands``."""
        key = KEY.format(number)
        blank = dict.fromkeys(self.bridges.double.tables["commands"].columns)
        row = {"id": key, "imei": IMEI, "text": "x", "status": "pending"}
        row["date_created"] = "2026-11-22T10:00:00.000Z"
        self.bridges.double.rows("commands")[key] = {**blank, **row, **columns}
        return key

    async def post(self, hook: str, secret: str, body: Any = None) -> int:
        response = await treq.post(
            f"http://127.0.0.1:{self.port}/{hook}",
            json=body or {},
            headers=Headers({SECRET_HEADER: [secret]}),
            agent=Agent(self.bridges.reactor),
        )
        code: int = response.code
        await response.content()
        return code


@pytest_twisted.async_yield_fixture
async def watched(redis: RedisServer) -> AsyncIterator[Watched]:
    """Built, and started by the test when Directus holds what it wants."""
    bridges = Bridges(redis)
    watched = Watched(bridges)
    yield watched
    await watched.role.stopService()
    await bridges.end()


def start(watched: Watched) -> None:
    watched.role.privilegedStartService()
    watched.role.startService()


@ensureDeferred
async def test_all_is_there_before_anything_has_happened(watched: Watched) -> None:
    for result in ("answered", "denied", "refused", "down", "given_up"):
        assert watched.value("directus_calls_total", method="SEARCH", result=result) == 0
    for part in ("commands", "responses", "devices"):
        assert watched.value("bridge_retries_total", part=part) == 0
    assert watched.value("bridge_devices_timestamp_seconds") == 0


@ensureDeferred
async def test_commands_are_told_by_what_becomes_of_them(watched: Watched) -> None:
    watched.add(1, expires_at=PAST)
    start(watched)
    await until(lambda: watched.value("bridge_commands_total", result="ended") == 1, "expired")
    watched.add(2, expires_at=FUTURE)
    # There is no instance to send it to.
    await until(lambda: watched.value("bridge_commands_total", result="not_sent") > 0, "told")
    assert watched.value("bridge_commands_total", result="routed") == 0
    assert watched.value("bridge_retries_total", part="commands") > 0
    assert watched.value("directus_calls_total", method="PATCH", result="answered") >= 1
    assert watched.value("directus_call_seconds_count", method="PATCH") >= 1


@ensureDeferred
async def test_responses_are_told_by_what_becomes_of_them(watched: Watched) -> None:
    key = watched.add(1, status="routed")
    start(watched)
    watched.bridges.respond(key, "responded")
    watched.bridges.respond(KEY.format(9), "responded")
    await watched.bridges.all_written()
    assert watched.value("bridge_responses_total", result="written") == 1
    assert watched.value("bridge_responses_total", result="no_row") == 1
    assert watched.value("bridge_responses_total", result="held") == 0


@ensureDeferred
async def test_a_directus_that_is_gone_is_told(watched: Watched) -> None:
    await watched.bridges.stop_directus()
    watched.bridges.respond(watched.add(1, status="routed"), "responded")
    start(watched)
    for part in ("commands", "responses", "devices"):
        await until(
            lambda part=part: watched.value("bridge_retries_total", part=part) > 0,  # type: ignore[misc]
            f"a failure of {part}",
        )
    assert watched.value("directus_calls_total", method="SEARCH", result="down") > 0
    watched.bridges.start_directus()
    await until(
        lambda: watched.value("bridge_responses_total", result="written") == 1,
        "it is told in the end",
        timeout=60,
    )


@ensureDeferred
async def test_devices_are_told_when_they_are_written(watched: Watched) -> None:
    devices = watched.bridges.double.rows("devices")
    blank = dict.fromkeys(watched.bridges.double.tables["devices"].columns)
    for number, enabled in enumerate((True, True, False)):
        imei = f"35630704244101{number}"
        devices[imei] = {**blank, "imei": imei, "enabled": enabled}
    start(watched)
    await until(lambda: watched.value("bridge_devices_timestamp_seconds") > 1e9, "written")
    assert watched.value("bridge_devices") == 2


@ensureDeferred
async def test_posts_are_told_by_result(watched: Watched) -> None:
    start(watched)
    assert await watched.post("commands", "wrong") == 401
    assert await watched.post("commands", "secret") == 400
    assert await watched.post("commands", "secret", {"key": watched.add(1, expires_at=PAST)}) == 202
    assert await watched.post("devices", "secret") == 202
    for result, count in (("wrong_secret", 1), ("malformed", 1), ("accepted", 1), ("too_many", 0)):
        assert watched.value("bridge_webhook_posts_total", hook="commands", result=result) == count
    assert watched.value("bridge_webhook_posts_total", hook="devices", result="accepted") == 1
