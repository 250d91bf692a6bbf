"""Commands of an instance that dies or stops, or whose Redis goes away or forgets."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    claimed,
    has_claimed,
    is_told,
    record_of,
)
from tests.integration.commands.ledgers import (
    OTHER,
    command_ids,
    is_empty,
    live,
    outbound,
    said,
    sent,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import statuses
from tracker.commands import scripts
from tracker.commands.delivery import BATCH, STOP_GRACE, STOP_TIMEOUT
from tracker.commands.retrying import MIN_RETRY_DELAY
from tracker.errors import Unavailable
from tracker.redis.script import Script

STREAM: Final = outbound("one")


# A process dies, and the next one of its name finds what it has left.


@ensureDeferred
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "away"])
async def test_what_a_crash_leaves_is_seen_to_by_the_next_process(
    connected: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    devices = {name: f"35630704244000{number}" for number, name in enumerate("abcde")}
    connections = {name: one.login(devices[name]) for name in "abce"}
    # a: outstanding; b: claimed; c: queued; d: never read; e: over, with an entry left.
    connections["b"].moods = [False, True]
    connections["c"].busy = True
    for name in "abc":
        one.send(name, devices[name])
    await one.until(lambda: ("a", "delivered", "") in said(redis), "delivered")
    await one.until(has_claimed(redis, "b"), "claimed")
    await one.has_read(3)
    await one.crash()
    one.send("d", devices["d"])
    redis.client.set(sent("e"), "done responded 1-1")
    one.send("e", devices["e"])

    again = instances.prepare()
    await again.ready()
    newer = {name: again.login(devices[name]) for name in "abcde"} if connected else {}
    again.delivery.begin()
    await again.until(lambda: {"a", "b"} <= statuses(redis).keys(), "in doubt")
    if not connected:
        await again.until(lambda: is_empty(redis, STREAM), "passed on")
        assert command_ids(redis, waiting(devices["c"])) == ["c"]
        assert command_ids(redis, waiting(devices["d"])) == ["d"]
        newer = {name: again.login(devices[name]) for name in "abcde"}
    for name in "cd":
        await again.has_written(newer[name], name)
        newer[name].say("an answer")
    await is_told(again, redis, {"a": "failed/in_doubt", "b": "failed/in_doubt", "c": "responded"})
    assert statuses(redis) == {
        **dict.fromkeys("ab", "failed/in_doubt"),
        **dict.fromkeys("cd", "responded"),
    }
    assert connections["a"].written == ["a"]
    assert [newer[name].written for name in "abe"] == [[], [], []]
    assert [connections[name].written for name in "bc"] == [[], []]


@ensureDeferred
async def test_more_than_one_page_of_pending_entries_is_taken_up(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login(busy=True)
    ids = [f"c{number}" for number in range(2 * BATCH + 50)]
    for command_id in ids:
        one.send(command_id)
    await one.has_read(len(ids))
    await one.crash()
    again = instances.prepare()
    await again.ready()
    device = again.login(busy=True)
    again.delivery.begin()
    await again.has_read(len(ids))
    device.close()
    await again.until(lambda: command_ids(redis, waiting()) == ids, "all wait, in order")


@ensureDeferred
@pytest.mark.parametrize("state", ["sent", "delivered"])
async def test_what_was_written_is_not_written_again_after_the_group_was_lost(
    state: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    if state == "sent":
        one.redis.interrupt(scripts.DELIVERED, before=unavailable)
    one.send("c1")
    await one.has_written(device, "c1")
    await one.until(lambda: record_of(redis).startswith(f"{state} "), state)
    await one.crash()
    redis.client.xgroup_destroy(STREAM, "ingest")

    again = instances.prepare()
    await again.ready()
    newer = again.login()
    again.delivery.begin()
    await is_told(again, redis, {"c1": "failed/in_doubt"})
    assert newer.written == []


# A stop.


@ensureDeferred
async def test_a_stop_waits_for_the_answer_and_passes_the_others_on(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    for command_id in ("c1", "c2", "c3"):
        one.send(command_id)
    await one.has_written(device, "c1")
    await one.has_read(3)
    stopped: list[object] = []
    one.delivery.stopService().addBoth(stopped.append)
    one.clock.advance(STOP_GRACE / 2)
    assert not stopped
    device.say("just in time")
    await one.until(lambda: stopped == [None], "stopped")
    assert statuses(redis) == {"c1": "responded"}
    assert device.written == ["c1"]
    # Until its connection is closed the device still is registered here: nothing may be
    # brought back on that account.
    one.clock.advance(0)
    assert one.fetched == []
    assert command_ids(redis, waiting()) == ["c2", "c3"]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("when", ["claimed", "not logged in"])
async def test_a_stop_passes_on_what_is_not_written(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    if when == "claimed":
        device = await claimed(one, redis, text="c2")
        assert device.written == []
    else:
        one.send("c2")
    await one.until(lambda: redis.client.xlen(STREAM) == 0 or one.delivery.entries.commands, "read")
    await one.stop_delivery()
    assert [content[b"payload"] for _, content in redis.client.xrange(waiting())] == [b"c2"]
    assert is_empty(redis, STREAM)
    assert one.fetched == []


@ensureDeferred
async def test_a_stop_while_redis_is_away_is_no_failure(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    for command_id in ("c1", "c2"):
        one.send(command_id)
    one.send("c3", OTHER)
    busy = one.login(OTHER, busy=True)
    await one.has_written(device, "c1")
    await one.until(lambda: record_of(redis).startswith("delivered "), "delivered")
    await one.until(lambda: len(one.delivery.entries.commands) >= 2, "held")
    redis.kill()
    await one.stop_delivery(step=STOP_TIMEOUT / 20)
    await one.crash()
    redis.start()
    assert busy.written == []

    again = await instances.start()
    await again.until(lambda: statuses(redis) == {"c1": "failed/in_doubt"}, "in doubt")
    await again.until(lambda: is_empty(redis, STREAM), "seen to")
    assert command_ids(redis, waiting()) == ["c2"]


@ensureDeferred
async def test_a_stop_while_redis_hangs_comes_to_an_end(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login(busy=True)
    one.send("c1")
    await one.has_read(1)
    one.redis.interrupt(scripts.OFFER, before=redis.suspend)
    one.send("c2", OTHER)  # is nowhere
    await one.until(lambda: one.redis.happened, "about to be passed on")
    try:
        await one.stop_delivery(step=STOP_TIMEOUT / 20)
    finally:
        redis.resume()


# Redis goes away, or forgets.

STEPS: Final[dict[str, Script]] = {
    "claim": scripts.CLAIM,
    "delivered": scripts.DELIVERED,
    "finish": scripts.FINISH,
}


def unavailable() -> None:
    raise Unavailable("the answer is lost")


@ensureDeferred
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["the answer is lost", "killed", "flushed"])
async def test_whatever_happens_at_a_step_there_is_one_write_and_one_final_response(
    what: str, when: str, step: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    happen = {
        "the answer is lost": unavailable,
        "killed": redis.kill,
        "flushed": redis.client.flushall,
    }[what]
    one.redis.interrupt(STEPS[step], **{when: happen})
    one.send("c1", timeout=1000)
    if step == "claim":
        await one.until(lambda: one.redis.happened, "it happens")
    else:
        await one.has_written(device, "c1")
        if step == "finish":
            await one.until(lambda: ("c1", "delivered", "") in said(redis), "delivered")
        device.say("an answer")
        await one.until(lambda: one.redis.happened, "it happens")
    if what == "killed":
        redis.start()
    if what == "flushed" and step == "claim" and when == "before":
        await one.is_idle()  # it is gone before it was begun with
        assert (device.written, said(redis)) == ([], [])
    else:
        await one.has_written(device, "c1", step=MIN_RETRY_DELAY)
        device.say("an answer")
    # It goes on with the next one.
    await one.connected()

    def next_one() -> bool:
        return len(device.written) > 1 or device.written == ["c2"]

    await one.until(lambda: not one.delivery.entries.commands, "at its end", step=MIN_RETRY_DELAY)
    if what == "flushed":
        live(redis, "one")
    one.send("c2")
    await one.until(next_one, "the next one", step=MIN_RETRY_DELAY)
    device.say("another answer")
    await one.until(lambda: "c2" in statuses(redis), "answered", step=MIN_RETRY_DELAY)
    await one.is_idle()
    assert device.written.count("c1") <= 1
    finals = [one for one in said(redis) if one[0] == "c1" and one[1] != "delivered"]
    if what == "flushed" and step == "finish" and when == "after":
        assert finals == []  # the response was flushed, too
    elif device.written[0] == "c1":
        assert finals == [("c1", "responded", "")]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("when", ["queued", "outstanding"])
async def test_an_outage_is_survived(when: str, instances: Instances, redis: RedisServer) -> None:
    one = await instances.start()
    device = one.login(busy=when == "queued")
    one.send("c1", timeout=3000)
    await one.has_read(1)
    if when == "outstanding":
        await one.has_written(device, "c1")
        await one.until(lambda: said(redis), "delivered")
    redis.kill()
    await one.until(lambda: any(one.reports), "told", step=0.1)
    if when == "outstanding":
        device.say("an answer")
    else:
        device.free()
    one.clock.advance(10)
    redis.start()
    await one.has_written(device, "c1", step=MIN_RETRY_DELAY)
    if when == "queued":
        device.say("an answer")
    await is_told(one, redis, {"c1": "responded"}, MIN_RETRY_DELAY)
    await one.until(lambda: one.reports[-1] is None, "read again", step=MIN_RETRY_DELAY)
    one.send("c2")
    await one.has_written(device, "c1", "c2")


@ensureDeferred
async def test_a_stream_that_is_deleted_is_read_again(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1")
    await one.has_written(device, "c1")
    redis.client.delete(STREAM)
    one.send("c2")
    device.say("an answer")
    await one.has_written(device, "c1", "c2", step=0.1)
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded", "c2": "responded"}, 0.1)


@ensureDeferred
async def test_a_group_that_is_destroyed_is_made_again_and_nothing_is_written_twice(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=3000)
    one.send("c2")
    await one.has_written(device, "c1")
    await one.has_read(2)
    redis.client.xgroup_destroy(STREAM, "ingest")
    one.send("c3")
    await one.until(lambda: len(one.delivery.entries.commands) == 3, "read again", step=0.1)
    for written in (["c1"], ["c1", "c2"], ["c1", "c2", "c3"]):
        await one.has_written(device, *written)
        device.say("an answer")
    await is_told(one, redis, {"c1": "responded", "c2": "responded", "c3": "responded"})
