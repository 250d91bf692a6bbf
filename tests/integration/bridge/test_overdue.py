"""Rows of commands that Redis has lost are told so, and no others."""

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

#: Of commands whose time has just been over for long enough.
LONG_AGO: Final = GRACE_PERIOD + 60


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def rows_that_were_over(bridges: Bridges, *seconds: float) -> list[str]:
    """Rows that expired so many seconds ago, the first one the newest."""
    keys = bridges.rows(len(seconds))
    for place, (key, over) in enumerate(zip(keys, seconds, strict=True)):
        row = bridges.double.rows("commands")[key]
        row |= {"expires_at": ago(over), "date_created": ago(over + 100 + place)}
    return keys


def row_of(bridges: Bridges, key: str) -> dict[str, Any]:
    return bridges.double.rows("commands")[key]


@ensureDeferred
async def test_what_redis_has_lost_is_in_doubt_and_all_else_is_left(bridges: Bridges) -> None:
    lost, soon, sent, waiting = rows_that_were_over(bridges, LONG_AGO, 60, LONG_AGO, LONG_AGO)
    client = bridges.redis.client
    entry = client.xadd(outbound("one"), {"command_id": sent}).decode()
    client.set(command_record(sent), f"delivered {outbound('one')} {entry}")
    client.xadd(waiting_commands(IMEI), {"command_id": waiting})
    before = {key: dict(row_of(bridges, key)) for key in (soon, sent, waiting)}
    await bridges.overdue()
    await until(lambda: row_of(bridges, lost)["status"] == "failed", "told")
    assert row_of(bridges, lost)["reason"] == "in_doubt"
    assert row_of(bridges, lost)["response"] == LOST.response
    assert row_of(bridges, lost)["finished_at"]
    assert {key: row_of(bridges, key) for key in before} == before
    # The entry is gone, and no response came of it.
    client.xdel(outbound("one"), entry)
    await until(lambda: row_of(bridges, sent)["status"] == "failed", "told")
    assert row_of(bridges, waiting) == before[waiting]


@ensureDeferred
async def test_without_expires_at_it_is_an_hour_after_its_creation(bridges: Bridges) -> None:
    over, not_yet = bridges.rows(2)
    row_of(bridges, over)["date_created"] = ago(DEFAULT_EXPIRY + LONG_AGO)
    row_of(bridges, not_yet)["date_created"] = ago(DEFAULT_EXPIRY + 60)
    await bridges.overdue()
    await until(lambda: row_of(bridges, over)["status"] == "failed", "told")
    assert row_of(bridges, not_yet)["status"] == "routed"


@ensureDeferred
async def test_what_redis_knows_is_told(bridges: Bridges) -> None:
    (key,) = rows_that_were_over(bridges, LONG_AGO)
    entry = bridges.redis.client.xadd(STREAM, response(key, "responded", response="INI:1"))
    bridges.redis.client.xgroup_create(STREAM, "directus", entry)  # somebody has skipped it
    bridges.redis.client.set(command_record(key), f"done responded {entry.decode()}")
    await bridges.overdue()
    await until(lambda: row_of(bridges, key)["status"] == "responded", "told")
    assert row_of(bridges, key)["response"] == "INI:1"
    assert row_of(bridges, key)["instance"] == "one"


@ensureDeferred
async def test_what_has_ended_and_was_told_something_earlier_is_told_again(
    bridges: Bridges,
) -> None:
    ended, begun, again = keys = bridges.rows(3, "delivered")
    for key in keys:
        row_of(bridges, key).update(finished_at=ago(1), expires_at=ago(-3600), date_created=ago(9))
    client = bridges.redis.client
    entry = client.xadd(STREAM, response(ended, "responded", response="INI:1"))
    client.xgroup_create(STREAM, "directus", entry)
    client.set(command_record(ended), f"done responded {entry.decode()}")
    # Both of which somebody has set back to pending.
    client.set(command_record(begun), f"sent {outbound('one')} 1-1")
    await bridges.overdue()
    await until(lambda: row_of(bridges, ended)["status"] == "responded", "told")
    requests = len(bridges.double.requests)
    await until(lambda: len(bridges.double.requests) > requests + 4, "looked at again and again")
    assert [row_of(bridges, key)["status"] for key in (begun, again)] == ["delivered"] * 2


@ensureDeferred
async def test_what_is_on_its_way_comes_first(bridges: Bridges) -> None:
    (key,) = rows_that_were_over(bridges, LONG_AGO)
    bridges.respond(key, "responded", response="INI:1")
    bridges.redis.client.xgroup_create(STREAM, "directus", "0")
    await bridges.overdue()
    await until(lambda: len(bridges.double.requests) > 2, "looked at again and again")
    assert row_of(bridges, key)["status"] == "routed"
    await bridges.writer()
    await bridges.all_written()
    assert row_of(bridges, key)["response"] == "INI:1"


@ensureDeferred
async def test_more_than_a_page_that_is_left_hides_no_other(bridges: Bridges) -> None:
    keys = rows_that_were_over(bridges, *[LONG_AGO] * 150)
    for key in keys[1:]:
        bridges.redis.client.xadd(waiting_commands(IMEI), {"command_id": key})
    await bridges.overdue()
    await until(lambda: row_of(bridges, keys[0])["status"] == "failed", "told")
    assert sum(row["status"] == "routed" for row in bridges.double.rows("commands").values()) == 149


@ensureDeferred
async def test_a_row_that_directus_refuses_hides_no_other(bridges: Bridges) -> None:
    lost, refused = rows_that_were_over(bridges, LONG_AGO, LONG_AGO)
    refusal = RequestError(400, "FAILED_VALIDATION", "no")
    bridges.double.tables["commands"].rejections[refused] = lambda _: refusal
    await bridges.overdue()
    await until(lambda: row_of(bridges, lost)["status"] == "failed", "told")
    assert row_of(bridges, refused)["status"] == "routed"


@ensureDeferred
async def test_its_end_does_not_wait_for_a_directus_that_hangs(bridges: Bridges) -> None:
    bridges.double.silent = True
    overdue = await bridges.overdue()
    await until(lambda: bridges.double.waiting, "requests")
    await overdue.stopService()
    assert bridges.double.waiting, "it has not waited for the answer"
