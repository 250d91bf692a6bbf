"""Responses in a real Redis are acknowledged after Directus has accepted them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.bridge.bridges import STREAM, Bridges, response
from tests.unit.bridge.queries import RequestError
from tests.waiting import until
from tracker.bridge import responses
from tracker.bridge.responses import BATCH_SIZE
from tracker.keys import command_record
from tracker.log.redis.dead import read_dead, retry_dead


@ensureDeferred
async def test_nothing_is_acknowledged_while_directus_is_down(bridges: Bridges) -> None:
    keys = bridges.rows(3 * BATCH_SIZE)
    await bridges.stop_directus()
    await bridges.writer()
    for key in keys:
        more = {"response": f"of {key}"}
        bridges.respond_all([response(key, "delivered"), response(key, "responded", **more)])
    await until(
        lambda: bridges.pending > 0 and bridges.last_report,
        "responses are read and the failure is reported",
    )
    reports = len(bridges.reports)
    await until(lambda: len(bridges.reports) > reports + 5, "writing is retried")
    assert 0 < bridges.pending <= BATCH_SIZE, "more than one batch was read"
    assert bridges.statuses() == {"routed"}
    bridges.start_directus()
    await bridges.all_written()
    rows = bridges.double.rows("commands")
    assert all(rows[key]["response"] == f"of {key}" for key in keys)
    assert bridges.statuses() == {"responded"}
    await until(lambda: bridges.last_report is None, "the recovery is reported")


@ensureDeferred
async def test_responses_are_retried_after_aborted_connections(bridges: Bridges) -> None:
    keys = bridges.rows(20)
    bridges.respond_all(response(key, "responded") for key in keys)
    bridges.double.silent = True
    await bridges.writer()
    for _ in range(3):
        await until(lambda: bridges.double.waiting, "Directus gets a request")
        assert bridges.pending == len(keys)
        await bridges.abort_connections()
    bridges.double.resume()
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_another_bridge_writes_the_responses_of_one_stopped_in_a_request(
    bridges: Bridges,
) -> None:
    keys = bridges.rows(20)
    bridges.respond_all(response(key, "responded") for key in keys)
    bridges.double.silent = True
    writer = await bridges.writer()
    await until(lambda: bridges.double.waiting, "Directus gets a request")
    await writer.stopService()
    assert bridges.double.waiting, "stopping has waited for the response"
    assert bridges.pending == len(keys)
    bridges.double.resume()
    await bridges.writer()
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_response_of_a_deleted_row_is_acknowledged(bridges: Bridges) -> None:
    one, two = bridges.rows(2)
    del bridges.double.rows("commands")[one]
    bridges.respond(one, "responded")
    bridges.redis.client.xgroup_create(STREAM, "directus", "0")
    bridges.redis.client.xreadgroup("directus", "this", {STREAM: ">"})
    bridges.redis.client.xtrim(STREAM, maxlen=0)  # while the entry is pending
    bridges.respond(one, "responded")
    bridges.respond(two, "responded")
    await bridges.writer()
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_responses_survive_a_kill_and_a_flush_of_redis(bridges: Bridges) -> None:
    keys = bridges.rows(6 * BATCH_SIZE)
    bridges.respond_all(response(key, "responded") for key in keys[: 4 * BATCH_SIZE])
    await bridges.writer()
    await until(lambda: "responded" in bridges.statuses(), "some responses are written")
    bridges.redis.kill()
    bridges.redis.start()
    await bridges.all_written()
    assert len(_rows_with(bridges, "responded")) == 4 * BATCH_SIZE
    bridges.redis.client.flushall()
    bridges.respond_all(response(key, "failed") for key in keys[4 * BATCH_SIZE :])
    await until(
        lambda: len(_rows_with(bridges, "failed")) == 2 * BATCH_SIZE,
        "responses after the flush are written",
        60,
    )
    await bridges.all_written()


@ensureDeferred
async def test_status_never_goes_back_with_two_bridges(bridges: Bridges) -> None:
    keys = bridges.rows(3 * BATCH_SIZE)
    seen: dict[str, list[str]] = {key: [] for key in keys}

    def watch(key: str) -> Any:
        return lambda data: seen[key].append(data["status"]) if "status" in data else None

    for key in keys:
        bridges.double.tables["commands"].rejections[key] = watch(key)
    await bridges.writer("one")
    await bridges.writer("two")
    bridges.respond_all(response(key, "delivered") for key in keys)
    for key in keys:
        bridges.respond_all([response(key, "responded"), response(key, "delivered")])
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}
    # Both may write the same status; none replaces a final status by "delivered".
    assert not [one for one in seen.values() for pair in pairwise(one) if pair[0] > pair[1]]


@ensureDeferred
async def test_final_status_written_meanwhile_by_another_bridge_is_restored(
    bridges: Bridges,
) -> None:
    (key,) = bridges.rows(1)
    bridges.redis.client.xadd("elsewhere", {"a": "b"})
    table = bridges.double.tables["commands"]

    def overtake(_: Any) -> None:
        """Write a final status as another bridge, while this one changes the row."""
        del table.rejections[key]
        table.rows[key].update(status="rejected", finished_at="2026-11-22T10:00:00.000Z")

    table.rejections[key] = overtake
    entry = bridges.redis.client.xadd(STREAM, response(key, "rejected", instance_id="two"))
    bridges.redis.client.set(command_record(key), f"done rejected {entry.decode()}")
    bridges.redis.client.xgroup_create(STREAM, "directus", entry)  # the other bridge has read it
    bridges.respond(key, "delivered")
    await bridges.writer()
    await bridges.all_written()
    row = table.rows[key]
    assert (row["status"], row["instance"]) == ("rejected", "two")


@ensureDeferred
async def test_responses_of_a_stopped_bridge_are_claimed(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "CLAIM_AFTER", 0.3)
    keys = bridges.rows(20)
    bridges.respond_all(response(key, "responded") for key in keys)
    bridges.double.silent = True
    gone = await bridges.writer("gone")
    await until(lambda: bridges.double.waiting, "Directus gets a request")
    await gone.stopService()
    bridges.double.resume()
    bridges.rows(20)  # undoes changes by the stopped bridge
    await bridges.writer("other")
    bridges.respond(keys[0], "delivered")
    await bridges.all_written()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_response_that_always_fails_becomes_a_dead_letter_that_can_be_retried(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "SET_ASIDE_TIMEOUT", 0.5)
    bad, good = bridges.rows(2)
    error = RequestError(403, "FORBIDDEN", "no")
    bridges.double.tables["commands"].rejections[bad] = lambda _: error
    await bridges.writer()
    bridges.respond(bad, "responded", response="INI:1")
    bridges.respond(good, "responded")
    await bridges.all_written()
    assert bridges.last_report is None
    redis = await bridges._connection()
    (letter,) = await read_dead(redis, STREAM)
    assert letter.reason == "Directus: 403 FORBIDDEN"
    assert bridges.double.rows("commands")[bad]["status"] == "routed"
    bridges.double.tables["commands"].rejections.clear()
    assert (await retry_dead(redis, STREAM, [letter.id])).moved == 1
    await bridges.all_written()
    row = bridges.double.rows("commands")[bad]
    assert (row["status"], row["response"]) == ("responded", "INI:1")


def _rows_with(bridges: Bridges, status: str) -> list[str]:
    rows = bridges.double.rows("commands")
    return [key for key, row in rows.items() if row["status"] == status]
