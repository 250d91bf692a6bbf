"""Tests of the delivery during crashes, stops, outages and losses of data in Redis."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    device_with_claim,
    is_claimed,
    record_of,
    wait_ended,
)
from tests.integration.commands.ledgers import (
    OTHER,
    command_ids,
    is_empty,
    outbound,
    record_key,
    set_heartbeats,
    summaries,
    waiting_stream,
)
from tests.servers import RedisServer
from tests.system.commands import statuses
from tracker.commands import scripts
from tracker.commands.delivery import BATCH, STOP_GRACE, STOP_TIMEOUT
from tracker.commands.retrying import MIN_RETRY_DELAY
from tracker.errors import Unavailable
from tracker.redis.script import Script

STREAM: Final = outbound("one")


# Crashes: the next process with the same instance ID continues.


@ensureDeferred
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "disconnected"])
async def test_new_process_handles_the_commands_of_a_crashed_one(
    connected: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    devices = {name: f"35630704244000{number}" for number, name in enumerate("abcde")}
    connections = {name: one.login(devices[name]) for name in "abce"}
    # a: outstanding; b: claimed; c: queued; d: not read; e: ended, with an entry left.
    connections["b"].busy_next = [False, True]
    connections["c"].busy = True
    for name in "abc":
        one.send(name, devices[name])
    await one.until(lambda: ("a", "delivered", "") in summaries(redis), "delivered")
    await one.until(is_claimed(redis, "b"), "claimed")
    await one.wait_held(3)
    await one.crash()
    one.send("d", devices["d"])
    redis.client.set(record_key("e"), "done responded 1-1")
    one.send("e", devices["e"])

    again = instances.prepare()
    await again.ready()
    newer = {name: again.login(devices[name]) for name in "abcde"} if connected else {}
    again.delivery.begin()
    await again.until(lambda: {"a", "b"} <= statuses(redis).keys(), "in doubt")
    if not connected:
        await again.until(lambda: is_empty(redis, STREAM), "passed on")
        assert command_ids(redis, waiting_stream(devices["c"])) == ["c"]
        assert command_ids(redis, waiting_stream(devices["d"])) == ["d"]
        newer = {name: again.login(devices[name]) for name in "abcde"}
    for name in "cd":
        await again.wait_written(newer[name], name)
        newer[name].answer("an answer")
    await wait_ended(
        again, redis, {"a": "failed/in_doubt", "b": "failed/in_doubt", "c": "responded"}
    )
    assert statuses(redis) == {
        **dict.fromkeys("ab", "failed/in_doubt"),
        **dict.fromkeys("cd", "responded"),
    }
    assert connections["a"].written == ["a"]
    assert [newer[name].written for name in "abe"] == [[], [], []]
    assert [connections[name].written for name in "bc"] == [[], []]


@ensureDeferred
async def test_all_pages_of_pending_entries_are_read(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login(busy=True)
    ids = [f"c{number}" for number in range(2 * BATCH + 50)]
    for command_id in ids:
        one.send(command_id)
    await one.wait_held(len(ids))
    await one.crash()
    again = instances.prepare()
    await again.ready()
    device = again.login(busy=True)
    again.delivery.begin()
    await again.wait_held(len(ids))
    device.close()
    await again.until(lambda: command_ids(redis, waiting_stream()) == ids, "all wait, in order")


@ensureDeferred
@pytest.mark.parametrize("state", ["sent", "delivered"])
async def test_command_is_not_written_again_after_the_group_was_lost(
    state: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    if state == "sent":
        one.redis.interrupt(scripts.DELIVERED, before=unavailable)
    one.send("c1")
    await one.wait_written(device, "c1")
    await one.until(lambda: record_of(redis).startswith(f"{state} "), state)
    await one.crash()
    redis.client.xgroup_destroy(STREAM, "ingest")

    again = instances.prepare()
    await again.ready()
    newer = again.login()
    again.delivery.begin()
    await wait_ended(again, redis, {"c1": "failed/in_doubt"})
    assert newer.written == []


# Stopping.


@ensureDeferred
async def test_stop_waits_for_an_answer_and_passes_on_queued_commands(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    for command_id in ("c1", "c2", "c3"):
        one.send(command_id)
    await one.wait_written(device, "c1")
    await one.wait_held(3)
    stopped: list[object] = []
    one.delivery.stopService().addBoth(stopped.append)
    one.clock.advance(STOP_GRACE / 2)
    assert not stopped
    device.answer("just in time")
    await one.until(lambda: stopped == [None], "stopped")
    assert statuses(redis) == {"c1": "responded"}
    assert device.written == ["c1"]
    # The device is still registered here: the commands that were passed on must not be fetched.
    one.clock.advance(0)
    assert one.fetched == []
    assert command_ids(redis, waiting_stream()) == ["c2", "c3"]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("when", ["claimed", "not logged in"])
async def test_stop_passes_on_unwritten_commands(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    if when == "claimed":
        device = await device_with_claim(one, redis, text="c2")
        assert device.written == []
    else:
        one.send("c2")
    await one.until(lambda: redis.client.xlen(STREAM) == 0 or one.delivery.entries.commands, "read")
    await one.stop_delivery()
    assert [content[b"payload"] for _, content in redis.client.xrange(waiting_stream())] == [b"c2"]
    assert is_empty(redis, STREAM)
    assert one.fetched == []


@ensureDeferred
async def test_stop_during_an_outage_of_redis_succeeds(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    for command_id in ("c1", "c2"):
        one.send(command_id)
    one.send("c3", OTHER)
    busy = one.login(OTHER, busy=True)
    await one.wait_written(device, "c1")
    await one.until(lambda: record_of(redis).startswith("delivered "), "delivered")
    await one.until(lambda: len(one.delivery.entries.commands) >= 2, "held")
    redis.kill()
    await one.stop_delivery(step=STOP_TIMEOUT / 20)
    await one.crash()
    redis.start()
    assert busy.written == []

    again = await instances.start()
    await again.until(lambda: statuses(redis) == {"c1": "failed/in_doubt"}, "in doubt")
    await again.until(lambda: is_empty(redis, STREAM), "the stream is empty")
    assert command_ids(redis, waiting_stream()) == ["c2"]


@ensureDeferred
async def test_stop_ends_while_redis_hangs(instances: Instances, redis: RedisServer) -> None:
    one = await instances.start()
    one.login(busy=True)
    one.send("c1")
    await one.wait_held(1)
    one.redis.interrupt(scripts.OFFER, before=redis.suspend)
    one.send("c2", OTHER)  # this device is not connected
    await one.until(lambda: one.redis.happened, "about to be passed on")
    try:
        await one.stop_delivery(step=STOP_TIMEOUT / 20)
    finally:
        redis.resume()


# Outages of Redis, and losses of its data.

OPERATIONS: Final[dict[str, Script]] = {
    "claim": scripts.CLAIM,
    "delivered": scripts.DELIVERED,
    "finish": scripts.FINISH,
}


def unavailable() -> None:
    raise Unavailable("the reply is lost")


@ensureDeferred
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["the reply is lost", "killed", "flushed"])
async def test_interrupted_command_is_written_once_and_gets_one_final_response(
    what: str, when: str, operation: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    interruption = {
        "the reply is lost": unavailable,
        "killed": redis.kill,
        "flushed": redis.client.flushall,
    }[what]
    one.redis.interrupt(OPERATIONS[operation], **{when: interruption})
    one.send("c1", timeout=1000)
    if operation == "claim":
        await one.until(lambda: one.redis.happened, what)
    else:
        await one.wait_written(device, "c1")
        if operation == "finish":
            await one.until(lambda: ("c1", "delivered", "") in summaries(redis), "delivered")
        device.answer("an answer")
        await one.until(lambda: one.redis.happened, what)
    if what == "killed":
        redis.start()
    if what == "flushed" and operation == "claim" and when == "before":
        await one.wait_idle()  # the entry was lost before it was claimed
        assert (device.written, summaries(redis)) == ([], [])
    else:
        await one.wait_written(device, "c1", step=MIN_RETRY_DELAY)
        device.answer("an answer")
    # The next command is delivered.
    await one.connected()

    def next_one() -> bool:
        return len(device.written) > 1 or device.written == ["c2"]

    await one.until(lambda: not one.delivery.entries.commands, "ended", step=MIN_RETRY_DELAY)
    if what == "flushed":
        set_heartbeats(redis, "one")
    one.send("c2")
    await one.until(next_one, "the next one", step=MIN_RETRY_DELAY)
    device.answer("another answer")
    await one.until(lambda: "c2" in statuses(redis), "answered", step=MIN_RETRY_DELAY)
    await one.wait_idle()
    assert device.written.count("c1") <= 1
    finals = [one for one in summaries(redis) if one[0] == "c1" and one[1] != "delivered"]
    if what == "flushed" and operation == "finish" and when == "after":
        assert finals == []  # the response was flushed
    elif device.written[0] == "c1":
        assert finals == [("c1", "responded", "")]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("when", ["queued", "outstanding"])
async def test_delivery_continues_after_an_outage(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=when == "queued")
    one.send("c1", timeout=3000)
    await one.wait_held(1)
    if when == "outstanding":
        await one.wait_written(device, "c1")
        await one.until(lambda: summaries(redis), "delivered")
    redis.kill()
    await one.until(lambda: any(one.reports), "outage reported", step=0.1)
    if when == "outstanding":
        device.answer("an answer")
    else:
        device.free()
    one.clock.advance(10)
    redis.start()
    await one.wait_written(device, "c1", step=MIN_RETRY_DELAY)
    if when == "queued":
        device.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded"}, MIN_RETRY_DELAY)
    await one.until(lambda: one.reports[-1] is None, "read again", step=MIN_RETRY_DELAY)
    one.send("c2")
    await one.wait_written(device, "c1", "c2")


@ensureDeferred
async def test_deleted_stream_is_created_and_read_again(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1")
    await one.wait_written(device, "c1")
    redis.client.delete(STREAM)
    one.send("c2")
    device.answer("an answer")
    await one.wait_written(device, "c1", "c2", step=0.1)
    device.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded", "c2": "responded"}, 0.1)


@ensureDeferred
async def test_destroyed_group_is_created_again_without_a_second_write(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=3000)
    one.send("c2")
    await one.wait_written(device, "c1")
    await one.wait_held(2)
    redis.client.xgroup_destroy(STREAM, "ingest")
    one.send("c3")
    await one.until(lambda: len(one.delivery.entries.commands) == 3, "read again", step=0.1)
    for written in (["c1"], ["c1", "c2"], ["c1", "c2", "c3"]):
        await one.wait_written(device, *written)
        device.answer("an answer")
    await wait_ended(one, redis, {"c1": "responded", "c2": "responded", "c3": "responded"})
