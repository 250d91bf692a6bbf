"""Responses and devices with a real Directus and different settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.directus.prepared import Prepared, prepare
from tests.directus.server import DirectusServer
from tests.integration.bridge.bridges import STREAM, Bridges, response
from tests.servers import RedisServer
from tests.unit.bridge.double import BRIDGE_TOKEN
from tests.waiting import until
from tracker.bridge.rest import DirectusClient, DirectusDenied
from tracker.bridge.schema import BRIDGE_POLICY

IMEI = "356307042441013"

Start = Callable[..., DirectusServer]


class RealBridges(Bridges):
    """Services of the bridge with a real Directus."""

    response_timeout = 60.0
    """Seconds for a response; applies to clients that are created later."""

    def __init__(self, redis: RedisServer, server: DirectusServer) -> None:
        super().__init__(redis)
        self.server = server

    def _client(self) -> DirectusClient:
        client = DirectusClient(
            self.reactor, self.server.url, BRIDGE_TOKEN, timeout=self.response_timeout
        )
        self._open.append(client)
        return client

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Execute a statement directly in the database, and return its rows."""
        with psycopg.connect(self.server.database_url, autocommit=True) as connection:
            found = connection.execute(statement, values)
            return list(found.fetchall()) if found.description else []

    def rows(self, count: int, status: str = "routed") -> list[str]:
        made = self.sql(
            "INSERT INTO commands (id, imei, text, status) "
            "SELECT gen_random_uuid(), %s, 'x', %s FROM generate_series(1, %s) RETURNING id",
            *(IMEI, status, count),
        )
        return [str(key) for (key,) in made]

    def statuses(self) -> set[str]:
        return {status for (status,) in self.sql("SELECT status FROM commands")}


@pytest_twisted.async_yield_fixture
async def bridges(redis: RedisServer, directus: Prepared) -> AsyncIterator[RealBridges]:
    directus.wipe()
    bridges = RealBridges(redis, directus.server)
    yield bridges
    await bridges.end()


@pytest_twisted.async_yield_fixture
async def started(
    redis: RedisServer, tmp_path: Path, start_directus: Start
) -> AsyncIterator[RealBridges]:
    """Provide a Directus that the test may restart with other settings."""
    server = start_directus()
    prepare(server, tmp_path)
    bridges = RealBridges(redis, server)
    yield bridges
    await bridges.end()


@ensureDeferred
async def test_hundreds_of_responses_are_written_in_few_requests(bridges: RealBridges) -> None:
    keys = bridges.rows(250)
    for key in keys:
        bridges.respond(key, "delivered")
        bridges.respond(key, "responded", response=f"of {key}")
    await bridges.writer()
    await bridges.all_written()
    rows = bridges.sql("SELECT id, status, response, delivered_at, finished_at FROM commands")
    assert len(rows) == 250
    for key, status, text, delivered_at, finished_at in rows:
        assert (status, text) == ("responded", f"of {key}")
        assert delivered_at is not None
        assert finished_at is not None


@ensureDeferred
async def test_row_that_the_database_refuses_does_not_affect_others(bridges: RealBridges) -> None:
    bad, *others = bridges.rows(30)
    bridges.sql(
        "CREATE FUNCTION refuse() RETURNS trigger AS "
        "$$ BEGIN RAISE 'not this one'; END $$ LANGUAGE plpgsql"
    )
    bridges.sql(
        "CREATE TRIGGER refuse BEFORE UPDATE ON commands FOR EACH ROW "
        f"WHEN (NEW.id = '{bad}') EXECUTE FUNCTION refuse()"
    )
    try:
        bridges.respond(bad, "delivered")
        bridges.respond(bad, "responded")
        for key in others:
            bridges.respond(key, "responded")
        await bridges.writer()
        await until(lambda: bridges.pending == 2, "the others are written", timeout=60)
        await until(lambda: bridges.last_report is None, "the failing row is set aside")
        (later,) = bridges.rows(1)
        bridges.respond(later, "responded")
        count = "SELECT count(*) FROM commands WHERE status = 'responded'"
        await until(lambda: bridges.sql(count) == [(30,)], "a later response is written")
        await until(lambda: bridges.pending == 2, "the later response is acknowledged")
    finally:
        bridges.sql("DROP FUNCTION refuse CASCADE")
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_status_is_written_without_a_refused_text(bridges: RealBridges) -> None:
    bad, good = bridges.rows(2)
    bridges.respond(bad, "responded", response="x" * 1_100_000)  # MAX_PAYLOAD_SIZE is 1 MB
    bridges.respond(good, "responded", response="\0\ud7ff")
    await bridges.writer()
    await bridges.all_written()
    rows = dict(bridges.sql("SELECT id::text, response FROM commands WHERE status = 'responded'"))
    assert rows == {bad: None, good: "\\x00\ud7ff"}


@ensureDeferred
async def test_responses_of_deleted_rows_are_acknowledged(bridges: RealBridges) -> None:
    keys = bridges.rows(60)
    for key in keys:
        bridges.respond(key, "responded")
    for key in keys[::2]:
        bridges.sql("DELETE FROM commands WHERE id = %s", key)
    bridges.respond("no-uuid", "responded")
    await bridges.writer()
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_no_response_is_lost_when_directus_is_killed_or_hangs(bridges: RealBridges) -> None:
    bridges.response_timeout = 5.0  # a response that takes longer leads to a retry
    keys = bridges.rows(400)
    for key in keys[:200]:
        bridges.respond(key, "responded")
    await bridges.writer()
    await until(lambda: "responded" in bridges.statuses(), "some responses are written")
    bridges.server.kill()
    await until(lambda: bridges.last_report, "the failure is reported")
    assert bridges.pending > 0
    bridges.server.start()
    await bridges.all_written()
    bridges.server.suspend()
    for key in keys[200:]:
        bridges.respond(key, "failed", reason="timeout")
    await until(
        lambda: "no response" in str(bridges.last_report), "the failure is reported", timeout=60
    )
    bridges.server.resume()
    await bridges.all_written()
    counted = bridges.sql("SELECT status, count(*) FROM commands GROUP BY status ORDER BY 1")
    assert counted == [("failed", 200), ("responded", 200)]


@ensureDeferred
async def test_responses_survive_an_outage_of_the_database(started: RealBridges) -> None:
    for key in started.rows(20):
        started.respond(key, "responded")
    started.sql("ALTER TABLE commands RENAME TO gone")
    await started.writer()
    await until(lambda: started.last_report, "the failure is reported", timeout=60)
    assert started.pending == 20
    started.sql("ALTER TABLE gone RENAME TO commands")
    await started.all_written()
    assert started.statuses() == {"responded"}


@ensureDeferred
async def test_bridge_works_with_a_row_limit_and_cache_of_directus(started: RealBridges) -> None:
    """The settings limit responses to five rows, and let GET return old data."""
    server = started.server
    server.kill()
    server.variables = {"QUERY_LIMIT_MAX": "5", "CACHE_ENABLED": "true"}
    server.start()
    keys = started.rows(23)
    for key in keys:
        started.respond(key, "delivered")
    await started.writer()
    await started.all_written()
    for key in keys:
        started.respond(key, "responded")
    for key in keys:
        started.respond(key, "delivered")
    await started.all_written()
    assert started.statuses() == {"responded"}
    started.sql(
        "INSERT INTO devices (imei, enabled) "
        "SELECT '35630704244' || n, true FROM generate_series(1001, 1012) n"
    )
    sync = await started.devices()
    await until(lambda: started.redis.client.scard("devices:allowed") == 12, "all are read")
    started.sql("UPDATE devices SET enabled = false WHERE imei <> %s", "356307042441001")
    sync.announce()
    await until(lambda: started.redis.client.scard("devices:allowed") == 1, "read again")


@ensureDeferred
async def test_lost_permission_for_devices_changes_nothing(bridges: RealBridges) -> None:
    data = bridges.server.data
    data("POST", "/items/devices", {"imei": IMEI})
    sync = await bridges.devices()
    await until(lambda: bridges.redis.client.scard("devices:allowed") == 1, "read")
    (right,) = data(
        "GET",
        f"/permissions?filter[policy][_eq]={BRIDGE_POLICY}&filter[collection][_eq]=devices",
    )
    path = f"/permissions/{right['id']}"
    try:
        # A user who must not see any row gets an empty list.
        data("PATCH", path, {"permissions": {"imei": {"_eq": "none"}}})
        sync.announce()
        await until(lambda: "no devices" in str(bridges.last_report), "the failure is reported")
        data("PATCH", path, {"permissions": None, "action": "delete"})
        with pytest.raises(DirectusDenied):
            await bridges._client().get_items("devices")
        sync.announce()
        await until(lambda: "403" in str(bridges.last_report), "the failure is reported")
        assert bridges.redis.client.scard("devices:allowed") == 1
    finally:
        data("PATCH", path, {"permissions": None, "action": "read"})
    await until(lambda: bridges.last_report is None, "read again")


@ensureDeferred
async def test_overwritten_final_status_is_restored(bridges: RealBridges) -> None:
    (key,) = bridges.rows(1)
    # The trigger makes the change of another bridge during the change of this bridge.
    bridges.sql(
        "CREATE FUNCTION overtake() RETURNS trigger AS $$ BEGIN "
        "NEW.finished_at = now(); NEW.response = 'of the other'; RETURN NEW; END $$ "
        "LANGUAGE plpgsql"
    )
    bridges.sql(
        "CREATE TRIGGER overtake BEFORE UPDATE ON commands FOR EACH ROW "
        "WHEN (NEW.status = 'delivered') EXECUTE FUNCTION overtake()"
    )
    try:
        entry = bridges.redis.client.xadd(STREAM, response(key, "rejected", response="no"))
        bridges.redis.client.set(f"commands:sent:{key}", f"done rejected {entry.decode()}")
        bridges.redis.client.xgroup_create(STREAM, "directus", entry)
        bridges.respond(key, "delivered")
        await bridges.writer()
        await bridges.all_written()
    finally:
        bridges.sql("DROP FUNCTION overtake CASCADE")
    assert bridges.sql("SELECT status, response FROM commands") == [("rejected", "no")]


@ensureDeferred
async def test_commands_that_redis_has_lost_become_in_doubt(bridges: RealBridges) -> None:
    expired, without, later = bridges.rows(3)
    bridges.sql("UPDATE commands SET date_created = now() - interval '2 hours'")
    bridges.sql("UPDATE commands SET expires_at = now() - interval '1 hour' WHERE id = %s", expired)
    bridges.sql("UPDATE commands SET expires_at = now() + interval '1 hour' WHERE id = %s", later)
    await bridges.overdue()
    lost = "SELECT id::text FROM commands WHERE status = 'failed' AND reason = 'in_doubt'"
    await until(lambda: len(bridges.sql(lost)) == 2, "the final status is written", timeout=60)
    assert {key for (key,) in bridges.sql(lost)} == {expired, without}
    # A late change has overwritten the final status.
    (ended,) = bridges.rows(1, "delivered")
    entry = bridges.redis.client.xadd(STREAM, response(ended, "responded", response="INI:1"))
    bridges.redis.client.xgroup_setid(STREAM, "directus", entry)
    bridges.redis.client.set(f"commands:sent:{ended}", f"done responded {entry.decode()}")
    bridges.sql("UPDATE commands SET finished_at = now() WHERE id = %s", ended)
    again = "SELECT response FROM commands WHERE status = 'responded'"
    await until(
        lambda: bridges.sql(again) == [("INI:1",)], "the final status is written", timeout=60
    )
