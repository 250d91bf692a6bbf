"""Responses in a real Redis are acknowledged when Directus has taken them, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, Final

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from tests.integration.bridge.bridges import STREAM, Bridges, response
from tests.servers import RedisServer
from tests.unit.bridge.double import BRIDGE_TOKEN, Trouble
from tests.unit.bridge.queries import Complaint
from tests.waiting import until
from tracker.bridge import responses
from tracker.bridge.responses import BATCH
from tracker.keys import command_record


@pytest_twisted.async_yield_fixture
async def bridges(redis: RedisServer) -> AsyncIterator[Bridges]:
    bridges = Bridges(redis)
    yield bridges
    await bridges.end()


@ensureDeferred
async def test_nothing_is_acknowledged_while_directus_is_down(bridges: Bridges) -> None:
    keys = bridges.rows(3 * BATCH)
    await bridges.goes()
    await bridges.writer()
    for key in keys:
        bridges.say(key, "delivered")
        bridges.say(key, "responded", response=f"of {key}")
    await until(lambda: bridges.pending > 0 and bridges.trouble, "read, and told nowhere")
    reports = len(bridges.reports)
    await until(lambda: len(bridges.reports) > reports + 5, "tried again")
    assert 0 < bridges.pending <= BATCH, "no more is taken than Directus can be told"
    assert bridges.statuses() == {"routed"}
    bridges.comes()
    await bridges.all_told()
    rows = bridges.double.rows("commands")
    assert all(rows[key]["response"] == f"of {key}" for key in keys)
    assert bridges.statuses() == {"responded"}
    await until(lambda: bridges.trouble is None, "well again")


TROUBLES: Final = {
    "429": Trouble(429, "REQUESTS_EXCEEDED", headers={"Retry-After": "0"}),
    "500": Trouble(500, "INTERNAL_SERVER_ERROR"),
    "503": Trouble(503, "SERVICE_UNAVAILABLE"),
    "403": Trouble(403, "FORBIDDEN"),
    "a proxy": Trouble(404, body=b"<html>"),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
@ensureDeferred
async def test_nothing_is_acknowledged_that_is_answered_so(
    bridges: Bridges, trouble: Trouble
) -> None:
    keys = bridges.rows(20)
    for key in keys:
        bridges.say(key, "responded")
    bridges.double.troubles += [trouble] * 10_000
    await bridges.writer()
    await until(lambda: len(bridges.double.asked) > 10, "tried again")
    assert bridges.pending == len(keys)
    await until(lambda: bridges.trouble, "told")
    bridges.double.troubles.clear()
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_nothing_is_acknowledged_with_a_token_that_is_revoked(bridges: Bridges) -> None:
    (key,) = bridges.rows(1)
    bridges.say(key, "responded")
    user = bridges.double.users.pop(BRIDGE_TOKEN)
    await bridges.writer()
    await until(lambda: len(bridges.double.asked) > 5, "tried again")
    assert bridges.pending == 1
    bridges.double.users[BRIDGE_TOKEN] = user
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_what_directus_breaks_off_is_told_again(bridges: Bridges) -> None:
    keys = bridges.rows(20)
    for key in keys:
        bridges.say(key, "responded")
    bridges.double.silent = True
    await bridges.writer()
    for _ in range(3):
        await until(lambda: bridges.double.waiting, "asked")
        assert bridges.pending == len(keys)
        await bridges.break_off()
    bridges.double.speak()
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_it_ends_while_directus_hangs_and_another_goes_on(bridges: Bridges) -> None:
    keys = bridges.rows(20)
    for key in keys:
        bridges.say(key, "responded")
    bridges.double.silent = True
    writer = await bridges.writer()
    await until(lambda: bridges.double.waiting, "asked")
    await writer.stopService()
    assert bridges.double.waiting, "it has not waited for the answer"
    assert bridges.pending == len(keys)
    bridges.double.speak()
    await bridges.writer()
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_one_row_that_is_never_taken_holds_back_no_other(bridges: Bridges) -> None:
    bad, *others = bridges.rows(50)
    poison = Complaint(500, "INTERNAL_SERVER_ERROR", "An unexpected error occurred.")
    bridges.double.tables["commands"].poisoned[bad] = lambda _: poison
    bridges.say(bad, "delivered")
    bridges.say(bad, "responded")
    for key in others:
        bridges.say(key, "responded")
    await bridges.writer()
    await until(lambda: bridges.pending == 2, "the others are told")
    for key in bridges.rows(50)[1:]:  # all anew
        bridges.say(key, "failed")
    await until(lambda: bridges.statuses() == {"routed", "failed"}, "others after it, too")
    asked = len(bridges.double.asked)
    await until(lambda: len(bridges.double.asked) > asked + 50, "tried again and again")
    assert bridges.pending == 2, "and never lost"
    bridges.double.tables["commands"].poisoned.clear()
    await bridges.all_told()
    assert bridges.double.rows("commands")[bad]["status"] == "responded"


@ensureDeferred
async def test_a_row_that_is_gone_is_let_go(bridges: Bridges) -> None:
    one, two = bridges.rows(2)
    del bridges.double.rows("commands")[one]
    bridges.say(one, "responded")
    bridges.redis.client.xgroup_create(STREAM, "directus", "0")
    bridges.redis.client.xreadgroup("directus", "this", {STREAM: ">"})
    bridges.redis.client.xtrim(STREAM, maxlen=0)  # though it is pending
    bridges.say(one, "responded")
    bridges.say(two, "responded")
    await bridges.writer()
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


@ensureDeferred
async def test_redis_is_killed_and_flushed_meanwhile(bridges: Bridges) -> None:
    keys = bridges.rows(6 * BATCH)
    for key in keys[: 4 * BATCH]:
        bridges.say(key, "responded")
    await bridges.writer()
    await until(lambda: "responded" in bridges.statuses(), "some are told")
    bridges.redis.kill()
    bridges.redis.start()
    await bridges.all_told()
    assert len(_told(bridges, "responded")) == 4 * BATCH
    bridges.redis.client.flushall()
    for key in keys[4 * BATCH :]:
        bridges.say(key, "failed")
    await until(lambda: len(_told(bridges, "failed")) == 2 * BATCH, "told after a flush", 60)
    await bridges.all_told()


@ensureDeferred
async def test_two_bridges_tell_a_status_that_never_goes_back(bridges: Bridges) -> None:
    keys = bridges.rows(3 * BATCH)
    seen: dict[str, list[str]] = {key: [] for key in keys}

    def watch(key: str) -> Any:
        return lambda data: seen[key].append(data["status"]) if "status" in data else None

    for key in keys:
        bridges.double.tables["commands"].poisoned[key] = watch(key)
    await bridges.writer("one")
    await bridges.writer("two")
    for key in keys:
        bridges.say(key, "delivered")
    for key in keys:
        bridges.say(key, "responded")
        bridges.say(key, "delivered")
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}
    # Both may say the same; none says "delivered" of what it finds ended.
    assert not [one for one in seen.values() for pair in pairwise(one) if pair[0] > pair[1]]


@ensureDeferred
async def test_a_final_status_that_another_bridge_overwrites_comes_back(bridges: Bridges) -> None:
    (key,) = bridges.rows(1)
    bridges.redis.client.xadd("elsewhere", {"a": "b"})
    table = bridges.double.tables["commands"]

    def overtake(_: Any) -> None:
        """Another bridge tells how it ended, after this one has looked at the row."""
        del table.poisoned[key]
        table.rows[key].update(status="rejected", finished_at="2026-11-22T10:00:00.000Z")

    table.poisoned[key] = overtake
    entry = bridges.redis.client.xadd(STREAM, response(key, "rejected", instance_id="two"))
    bridges.redis.client.set(command_record(key), f"done rejected {entry.decode()}")
    bridges.redis.client.xgroup_create(STREAM, "directus", entry)  # that one has it
    bridges.say(key, "delivered")
    await bridges.writer()
    await bridges.all_told()
    row = table.rows[key]
    assert (row["status"], row["instance"]) == ("rejected", "two")


@ensureDeferred
async def test_what_a_bridge_has_left_another_takes_over(
    bridges: Bridges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "CLAIM_AFTER", 0.3)
    keys = bridges.rows(20)
    for key in keys:
        bridges.say(key, "responded")
    bridges.double.silent = True
    gone = await bridges.writer("gone")
    await until(lambda: bridges.double.waiting, "asked")
    await gone.stopService()
    bridges.double.speak()
    bridges.rows(20)  # what it may have changed is as before
    await bridges.writer("other")
    bridges.say(keys[0], "delivered")
    await bridges.all_told()
    assert bridges.statuses() == {"responded"}


def _told(bridges: Bridges, status: str) -> list[str]:
    rows = bridges.double.rows("commands")
    return [key for key, row in rows.items() if row["status"] == status]
