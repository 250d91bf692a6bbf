"""Metrics of a complete bridge between a real Redis and the double of Directus over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
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


class MeasuredBridge:
    """A bridge with its metrics and a short poll interval."""

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
        """Add a row of ``commands``, and return its id."""
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
async def bridge(redis: RedisServer) -> AsyncIterator[MeasuredBridge]:
    """Provide a bridge that the test starts."""
    bridges = Bridges(redis)
    bridge = MeasuredBridge(bridges)
    yield bridge
    await bridge.role.stopService()
    await bridges.end()


def start(bridge: MeasuredBridge) -> None:
    bridge.role.privilegedStartService()
    bridge.role.startService()


@ensureDeferred
async def test_all_metrics_begin_at_zero(bridge: MeasuredBridge) -> None:
    for result in ("answered", "denied", "refused", "down", "given_up"):
        assert bridge.value("directus_calls_total", method="SEARCH", result=result) == 0
    for part in ("commands", "responses", "devices"):
        assert bridge.value("bridge_retries_total", part=part) == 0
    for part in ("commands", "responses"):
        assert bridge.value("bridge_set_aside_rows", part=part) == 0


@ensureDeferred
async def test_commands_are_counted_by_result(bridge: MeasuredBridge) -> None:
    bridge.add(1, expires_at=PAST)
    start(bridge)
    await until(lambda: bridge.value("bridge_commands_total", result="ended") == 1, "expired")
    bridge.add(2, expires_at=FUTURE)
    # No instance is running.
    await until(lambda: bridge.value("bridge_commands_total", result="not_sent") > 0, "not sent")
    assert bridge.value("bridge_commands_total", result="routed") == 0
    assert bridge.value("bridge_retries_total", part="commands") > 0
    patched = partial(bridge.value, "directus_calls_total", method="PATCH", result="answered")
    await until(lambda: patched() >= 1, "a row is patched")
    assert bridge.value("directus_call_seconds_count", method="PATCH") >= 1


@ensureDeferred
async def test_responses_are_counted_by_result(bridge: MeasuredBridge) -> None:
    key = bridge.add(1, status="routed")
    start(bridge)
    bridge.bridges.respond(key, "responded")
    bridge.bridges.respond(KEY.format(9), "responded")
    await bridge.bridges.all_written()
    assert bridge.value("bridge_responses_total", result="written") == 1
    assert bridge.value("bridge_responses_total", result="no_row") == 1
    assert bridge.value("bridge_responses_total", result="held") == 0


@ensureDeferred
async def test_failures_of_directus_are_counted(bridge: MeasuredBridge) -> None:
    await bridge.bridges.stop_directus()
    bridge.bridges.respond(bridge.add(1, status="routed"), "responded")
    start(bridge)
    for part in ("commands", "responses", "devices"):
        await until(
            lambda part=part: bridge.value("bridge_retries_total", part=part) > 0,  # type: ignore[misc]
            f"a failure of {part}",
        )
    assert bridge.value("directus_calls_total", method="SEARCH", result="down") > 0
    bridge.bridges.start_directus()
    await until(
        lambda: bridge.value("bridge_responses_total", result="written") == 1,
        "the response is written",
        timeout=60,
    )


@ensureDeferred
async def test_devices_are_counted_after_a_copy(bridge: MeasuredBridge) -> None:
    devices = bridge.bridges.double.rows("devices")
    blank = dict.fromkeys(bridge.bridges.double.tables["devices"].columns)
    for number, enabled in enumerate((True, True, False)):
        imei = f"35630704244101{number}"
        devices[imei] = {**blank, "imei": imei, "enabled": enabled}
    start(bridge)
    time = "tracker_bridge_devices_timestamp_seconds"
    await until(lambda: bridge.metrics_registry.get_sample_value(time), "written")
    assert bridge.value("bridge_devices_timestamp_seconds") > 1e9
    assert bridge.value("bridge_devices") == 2


@ensureDeferred
async def test_webhook_requests_are_counted_by_result(bridge: MeasuredBridge) -> None:
    start(bridge)
    assert await bridge.post("commands", "wrong") == 401
    assert await bridge.post("commands", "secret") == 400
    assert await bridge.post("commands", "secret", {"key": bridge.add(1, expires_at=PAST)}) == 202
    assert await bridge.post("devices", "secret") == 202
    for result, count in (("wrong_secret", 1), ("malformed", 1), ("accepted", 1), ("too_many", 0)):
        assert bridge.value("bridge_webhook_posts_total", hook="commands", result=result) == count
    assert bridge.value("bridge_webhook_posts_total", hook="devices", result="accepted") == 1
