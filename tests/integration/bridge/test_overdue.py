"""Only rows of commands without a coming response get a final status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pytest_twisted import ensureDeferred

from tests.integration.bridge.bridges import IMEI, STREAM, Bridges, response
from tests.unit.bridge.queries import RequestError
from tests.waiting import until
from tracker.bridge.overdue import GRACE_PERIOD, LOST
from tracker.bridge.schema import DEFAULT_EXPIRY
from tracker.keys import command_record, outbound, waiting_commands

#: Seconds since the expiry of a command that is overdue.
LONG_AGO: Final = GRACE_PERIOD + 60


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def expired_rows(bridges: Bridges, *seconds: float) -> list[str]:
    """Add rows that expired the given seconds ago; the first one is the newest."""
    keys = bridges.rows(len(seconds))
    for place, (key, over) in enumerate(zip(keys, seconds, strict=True)):
        row = bridges.double.rows("commands")[key]
        row |= {"expires_at": ago(over), "date_created": ago(over + 100 + place)}
    return keys


def row_of(bridges: Bridges, key: str) -> dict[str, Any]:
    return bridges.double.rows("commands")[key]


@ensureDeferred
async def test_only_commands_that_redis_has_lost_become_in_doubt(bridges: Bridges) -> None:
    lost, soon, sent, waiting = expired_rows(bridges, LONG_AGO, 60, LONG_AGO, LONG_AGO)
    client = bridges.redis.client
    entry = client.xadd(outbound("one"), {"command_id": sent}).decode()
    client.set(command_record(sent), f"delivered {outbound('one')} {entry}")
    client.xadd(waiting_commands(IMEI), {"command_id": waiting})
    before = {key: dict(row_of(bridges, key)) for key in (soon, sent, waiting)}
    await bridges.overdue()
    await until(lambda: row_of(bridges, lost)["status"] == "failed", "the final status is written")
    assert row_of(bridges, lost)["reason"] == "in_doubt"
    assert row_of(bridges, lost)["response"] == LOST.response
    assert row_of(bridges, lost)["finished_at"]
    assert {key: row_of(bridges, key) for key in before} == before
    # The entry is lost without a response.
    client.xdel(outbound("one"), entry)
    await until(lambda: row_of(bridges, sent)["status"] == "failed", "the final status is written")
    assert row_of(bridges, waiting) == before[waiting]


@ensureDeferred
async def test_command_without_expiry_is_overdue_after_the_default_expiry(bridges: Bridges) -> None:
    over, not_yet = bridges.rows(2)
    row_of(bridges, over)["date_created"] = ago(DEFAULT_EXPIRY + LONG_AGO)
    row_of(bridges, not_yet)["date_created"] = ago(DEFAULT_EXPIRY + 60)
    await bridges.overdue()
    await until(lambda: row_of(bridges, over)["status"] == "failed", "the final status is written")
    assert row_of(bridges, not_yet)["status"] == "routed"


@ensureDeferred
async def test_recorded_final_status_is_written(bridges: Bridges) -> None:
    (key,) = expired_rows(bridges, LONG_AGO)
    entry = bridges.redis.client.xadd(STREAM, response(key, "responded", response="INI:1"))
    bridges.redis.client.xgroup_create(STREAM, "directus", entry)  # the group has skipped it
    bridges.redis.client.set(command_record(key), f"done responded {entry.decode()}")
    await bridges.overdue()
    await until(
        lambda: row_of(bridges, key)["status"] == "responded", "the final status is written"
    )
    assert row_of(bridges, key)["response"] == "INI:1"
    assert row_of(bridges, key)["instance"] == "one"


@ensureDeferred
async def test_search_for_overdue_commands_restores_an_overwritten_final_status(
    bridges: Bridges,
) -> None:
    final, reset_sent, reset = keys = bridges.rows(3, "delivered")
    for key in keys:
        row_of(bridges, key).update(finished_at=ago(1), expires_at=ago(-3600), date_created=ago(9))
    client = bridges.redis.client
    entry = client.xadd(STREAM, response(final, "responded", response="INI:1"))
    client.xgroup_create(STREAM, "directus", entry)
    client.set(command_record(final), f"done responded {entry.decode()}")
    # A user has reset the two other rows to pending.
    client.set(command_record(reset_sent), f"sent {outbound('one')} 1-1")
    await bridges.overdue()
    await until(
        lambda: row_of(bridges, final)["status"] == "responded", "the final status is written"
    )
    requests = len(bridges.double.requests)
    await until(lambda: len(bridges.double.requests) > requests + 4, "several checks are made")
    assert [row_of(bridges, key)["status"] for key in (reset_sent, reset)] == ["delivered"] * 2


@ensureDeferred
async def test_pending_responses_are_written_first(bridges: Bridges) -> None:
    (key,) = expired_rows(bridges, LONG_AGO)
    bridges.respond(key, "responded", response="INI:1")
    bridges.redis.client.xgroup_create(STREAM, "directus", "0")
    await bridges.overdue()
    await until(lambda: len(bridges.double.requests) > 2, "several checks are made")
    assert row_of(bridges, key)["status"] == "routed"
    await bridges.writer()
    await bridges.all_written()
    assert row_of(bridges, key)["response"] == "INI:1"


@ensureDeferred
async def test_overdue_row_after_a_page_of_waiting_commands_is_found(bridges: Bridges) -> None:
    keys = expired_rows(bridges, *[LONG_AGO] * 150)
    for key in keys[1:]:
        bridges.redis.client.xadd(waiting_commands(IMEI), {"command_id": key})
    await bridges.overdue()
    await until(
        lambda: row_of(bridges, keys[0])["status"] == "failed", "the final status is written"
    )
    assert sum(row["status"] == "routed" for row in bridges.double.rows("commands").values()) == 149


@ensureDeferred
async def test_row_that_directus_refuses_does_not_affect_other_overdue_commands(
    bridges: Bridges,
) -> None:
    lost, refused = expired_rows(bridges, LONG_AGO, LONG_AGO)
    refusal = RequestError(400, "FAILED_VALIDATION", "no")
    bridges.double.tables["commands"].rejections[refused] = lambda _: refusal
    await bridges.overdue()
    await until(lambda: row_of(bridges, lost)["status"] == "failed", "the final status is written")
    assert row_of(bridges, refused)["status"] == "routed"


@ensureDeferred
async def test_stop_does_not_wait_for_a_hanging_search_for_overdue_commands(
    bridges: Bridges,
) -> None:
    bridges.double.silent = True
    overdue = await bridges.overdue()
    await until(lambda: bridges.double.waiting, "Directus gets a request")
    await overdue.stopService()
    assert bridges.double.waiting, "stopping has waited for the response"
