"""Commands on their way through one instance, to devices without sockets, on a real server."""

from __future__ import annotations

from typing import Final

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.commands.instances import (
    Instances,
    claimed,
    fate,
    have_ended,
    is_told,
    timed_out,
)
from tests.integration.commands.ledgers import (
    DEVICE,
    OTHER,
    command_ids,
    connect,
    is_empty,
    live,
    outbound,
    put,
    raw,
    said,
    sent,
    waiting,
)
from tests.servers import RedisServer
from tests.system.commands import fates, fields, registry, responses
from tracker.commands.courier import RETRY, Timing

STREAM: Final = outbound("one")


# What becomes of a command, row by row.


@ensureDeferred
@pytest.mark.parametrize(
    ("refused", "status"), [(False, "responded"), (True, "rejected")], ids=["answered", "nack"]
)
async def test_a_command_is_written_and_answered(
    refused: bool, status: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", text="getinfo", codec="14")
    await one.has_written(device, "getinfo")
    await one.until(lambda: said(redis) == [("c1", "delivered", "")], "said")
    assert one.delivery.load(DEVICE) == (0, True)
    assert fate(redis).startswith("delivered ")
    assert redis.client.xlen(STREAM) == 1  # it is responsible until there is an answer
    one.clock.advance(3)
    device.say("INI:2026/1/1", codec="14", refused=refused)
    await is_told(one, redis, {"c1": status})
    assert one.delivery.load(DEVICE) == (0, False)
    assert one.delivery.responses == {("delivered", ""): 1, (status, ""): 1}
    assert one.delivery.answers.sum == pytest.approx(3)
    delivered, final = responses(redis)["c1"]
    assert final["response"] == "INI:2026/1/1"
    assert (final["instance_id"], final["device_id"]) == ("one", DEVICE)
    assert delivered["at"] <= final["at"]


@ensureDeferred
async def test_a_device_that_keeps_silent_has_its_timeout(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=10)
    await one.has_written(device, "c1")
    one.clock.advance(9.9)
    assert one.delivery.load(DEVICE) == (0, True)
    one.clock.advance(0.2)
    await is_told(one, redis, {"c1": "failed/timeout"})
    assert device.written == ["c1"]


@ensureDeferred
@pytest.mark.parametrize("how", ["closes", "comes again"])
async def test_a_connection_that_ends_before_the_answer(
    how: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1")
    await one.has_written(device, "c1")
    if how == "closes":
        device.close()
    else:
        newer = one.login()
        device.say("too late, on the old connection")
        newer.say("nobody has asked")
    await is_told(one, redis, {"c1": "failed/disconnected"})
    if how == "comes again":
        assert newer.written == []
        one.send("c2")
        await one.has_written(newer, "c2")
        newer.say("an answer")
        await is_told(one, redis, {"c2": "responded"})
    assert device.written == ["c1"]


@ensureDeferred
async def test_a_command_expires_while_its_device_is_busy(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    one.send("c1", expires_in=60)
    one.send("c2", expires_in=600)
    await one.has_read(2)
    assert one.delivery.load(DEVICE) == (2, False)
    one.clock.advance(55)
    assert one.delivery.load(DEVICE) == (2, False)
    one.clock.advance(10)
    await one.until(lambda: fates(redis) == {"c1": "expired"}, "expired")
    assert command_ids(redis, STREAM) == ["c2"]
    device.free()
    await one.has_written(device, "c2")


@ensureDeferred
async def test_a_command_expires_behind_another_one(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=100)
    one.send("c2", expires_in=60)
    one.send("c3", expires_in=600)
    await one.has_written(device, "c1")
    await one.has_read(3)
    one.clock.advance(90)
    device.say("at last")
    await one.has_written(device, "c1", "c3")
    device.say("and another")
    await is_told(one, redis, {"c1": "responded", "c2": "expired", "c3": "responded"})


@ensureDeferred
async def test_a_command_that_comes_too_late_is_not_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", expires_in=-1)
    one.send("c2", OTHER, expires_in=-1)  # nor does it wait
    await is_told(one, redis, {"c1": "expired", "c2": "expired"})
    assert device.written == []
    assert not redis.client.exists(waiting(OTHER))


@ensureDeferred
async def test_a_connection_that_ends_before_its_turn_leaves_the_commands_to_others(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    contents = [one.send(f"c{number}") for number in range(3)]
    await one.has_read(3)
    before = raw(redis, STREAM)
    assert len(contents) == len(before)
    device.close()
    await one.until(lambda: raw(redis, waiting()) == before, "they wait")
    await one.until(lambda: is_empty(redis, STREAM), "they are here no more")
    assert said(redis) == []
    assert redis.client.keys("commands:sent:*") == []
    await one.is_idle()
    assert one.fetched == []


@ensureDeferred
@pytest.mark.parametrize("by", ["another entry", "a final response", "a janitor", "a flush"])
async def test_a_command_that_somebody_else_has_begun_with_is_dropped(
    by: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    entry_id = one.send("c1")
    one.send("c2")
    await one.has_read(2)
    match by:
        case "another entry":
            other = put(redis, outbound("two"), fields("c1", DEVICE))
            redis.client.set(sent("c1"), f"sent {other.stream} {other.id}")
        case "a final response":
            redis.client.set(sent("c1"), "done failed 1-1")
        case "a janitor":
            redis.client.xack(STREAM, "ingest", entry_id)
            redis.client.xdel(STREAM, entry_id)
        case "a flush":
            redis.client.flushall()
            one.send("c2")
    device.free()
    await one.has_written(device, "c2", step=RETRY)
    device.say("an answer")
    await is_told(one, redis, {"c2": "responded"})
    assert "c1" not in fates(redis)
    assert device.written == ["c2"]


@ensureDeferred
async def test_a_command_whose_fate_nobody_understands_is_not_written(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.rpush(sent("c1"), "a list")
    one.send("c1")
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await is_told(one, redis, {"c1": "failed/in_doubt", "c2": "responded"})


@ensureDeferred
async def test_what_is_claimed_waits_for_its_turn_again(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await claimed(one, redis)
    one.clock.advance(30)
    assert device.written == []
    device.free()
    assert device.written == ["c1"]  # in the same turn
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})


@ensureDeferred
async def test_what_is_claimed_may_expire(instances: Instances, redis: RedisServer) -> None:
    one = await instances.start()
    device = await claimed(one, redis, expires_in=60)
    one.clock.advance(61)
    await is_told(one, redis, {"c1": "expired"})
    device.free()
    one.send("c2")
    await one.has_written(device, "c2")


@ensureDeferred
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("owner", ["nobody", "two"])
async def test_a_claim_is_given_back_when_the_connection_ends(
    owner: str, waits: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=waits)
    device = await claimed(one, redis)
    if owner == "two":
        live(redis, "two")
        connect(redis, "two", DEVICE)
    content = raw(redis, STREAM)
    device.close()
    await one.is_idle()
    await one.until(lambda: is_empty(redis, STREAM), "passed on")
    assert device.written == []
    if owner == "two":
        assert raw(redis, outbound("two")) == content
    elif waits:
        assert raw(redis, waiting()) == content
    else:
        assert fates(redis) == {"c1": "failed/offline"}
        return
    assert fate(redis) == ""
    assert said(redis) == []


@ensureDeferred
@pytest.mark.parametrize("when", ["busy", "claimed"])
async def test_a_device_that_comes_again_gets_what_its_old_connection_did_not(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    if when == "busy":
        device = one.login(busy=True)
        one.send("c1")
        await one.has_read(1)
    else:
        device = await claimed(one, redis)
    newer = one.login()
    await one.has_written(newer, "c1")
    newer.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    assert device.written == []
    assert not redis.client.exists(waiting())


# Several commands.


@ensureDeferred
async def test_commands_are_written_in_order_one_at_a_time(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device, other = one.login(), one.login(OTHER)
    ids = [f"c{number}" for number in range(5)]
    for command_id in ids:
        one.send(command_id)
    one.send("d1", OTHER)
    await one.has_written(device, "c0")
    await one.has_written(other, "d1")  # devices do not wait for each other
    await one.has_read(6)
    for number in range(1, 6):
        assert one.delivery.load(DEVICE) == (5 - number, True)
        assert device.written == ids[:number]
        device.say(f"answer {number}")
        await one.until(have_ended(redis, number), "answered")
        await one.has_written(device, *ids[: number + 1])
    other.say("another answer")
    await is_told(one, redis, dict.fromkeys([*ids, "d1"], "responded"))
    for number, command_id in enumerate(ids, start=1):
        assert responses(redis)[command_id][-1]["response"] == f"answer {number}"


@ensureDeferred
async def test_many_commands_for_many_devices(instances: Instances, redis: RedisServer) -> None:
    one = await instances.start()
    devices = [f"35630704244{number:04}" for number in range(60)]
    sessions = [one.login(device_id) for device_id in devices]
    expected = {}
    for device_id in devices:
        for number in range(5):
            expected[f"{device_id}-{number}"] = "responded"
            one.send(f"{device_id}-{number}", device_id)
    answered = dict.fromkeys(devices, 0)

    def all_answered() -> bool:
        for device_id, session in zip(devices, sessions, strict=True):
            if len(session.written) > answered[device_id]:
                assert len(session.written) == answered[device_id] + 1
                answered[device_id] += 1
                session.say("an answer")
        return set(answered.values()) == {5}

    await one.until(all_answered, "all are answered")
    await one.is_idle()
    assert fates(redis) == expected
    assert is_empty(redis, STREAM)
    for device_id, session in zip(devices, sessions, strict=True):
        assert session.written == [f"{device_id}-{number}" for number in range(5)]
    assert one.delivery._couriers == {}


# Answers that come late.


@ensureDeferred
async def test_a_late_answer_is_not_the_next_commands(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await timed_out(one, redis)
    one.send("c2")
    await one.has_read(1)
    one.clock.advance(30)
    assert one.delivery.load(DEVICE) == (1, False)
    assert device.written == ["c1"]
    device.say("the answer to c1")
    await one.has_written(device, "c1", "c2")
    device.say("the answer to c2")
    await is_told(one, redis, {"c2": "responded"})
    assert responses(redis)["c2"][-1]["response"] == "the answer to c2"
    assert fates(redis)["c1"] == "failed/timeout"


@ensureDeferred
async def test_a_late_answer_that_does_not_come_is_waited_for_no_longer(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(timing=Timing(late_answer=60))
    device = await timed_out(one, redis)
    one.send("c2")
    await one.has_read(1)
    one.clock.advance(59)
    assert device.written == ["c1"]
    one.clock.advance(1.1)
    await one.has_written(device, "c1", "c2")
    device.say("an answer")
    await is_told(one, redis, {"c2": "responded"})


@ensureDeferred
async def test_where_no_answer_is_late_the_next_command_is_not_held_back(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(timing=Timing(late_answer=0))
    device = await timed_out(one, redis)
    one.send("c2")
    await one.has_written(device, "c1", "c2")


@ensureDeferred
async def test_a_late_answer_when_nothing_is_queued_is_dropped(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await timed_out(one, redis)
    device.say("the answer to c1")
    device.say("and one to nothing")
    one.send("c2")
    await one.has_written(device, "c1", "c2")
    device.say("the answer to c2")
    await is_told(one, redis, {"c2": "responded"})
    assert responses(redis)["c2"][-1]["response"] == "the answer to c2"


@ensureDeferred
async def test_a_command_of_another_codec_is_not_held_back(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await timed_out(one, redis)
    one.send("c2", codec="14")
    one.send("c3")
    await one.has_written(device, "c1", "c2")
    device.say("the answer to c1")
    assert one.delivery.load(DEVICE)[1]
    device.say("the answer to c2", codec="14")
    await one.has_written(device, "c1", "c2", "c3")
    device.say("another one, of the wrong codec", codec="14")
    device.say("the answer to c3")
    await is_told(one, redis, {"c2": "responded", "c3": "responded"})
    for command_id in ("c2", "c3"):
        answer = responses(redis)[command_id][-1]["response"]
        assert answer == f"the answer to {command_id}"


@ensureDeferred
async def test_what_is_held_back_may_expire_or_be_passed_on(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await timed_out(one, redis)
    one.send("c2", expires_in=40)
    one.send("c3")
    await one.has_read(2)
    one.clock.advance(35)
    await one.until(lambda: fates(redis).get("c2") == "expired", "expired")
    await one.until(lambda: one.delivery.load(DEVICE) == (1, False), "one is left")
    device.close()
    await one.until(lambda: command_ids(redis, waiting()) == ["c3"], "it waits")
    assert device.written == ["c1"]


@ensureDeferred
@pytest.mark.parametrize("held", ["before", "after"])
async def test_on_a_new_connection_no_answer_is_late(
    held: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = await timed_out(one, redis)
    if held == "before":
        one.send("c2")
        await one.has_read(1)
    newer = one.login()
    if held == "after":
        one.send("c2")
    await one.has_written(newer, "c2")
    newer.say("an answer")
    await is_told(one, redis, {"c2": "responded"})
    assert device.written == ["c1"]


@ensureDeferred
async def test_the_session_is_told_how_long_a_radio_listens(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(timing=Timing(radio_sleeps=120))
    device = one.login(busy=True)
    one.send("c1")
    await one.until(lambda: device.waiting, "waits for its turn")
    assert device.asked == [120]
    device.free()
    await one.has_written(device, "c1")
    # It was heard a moment ago; it need not be heard again now that the claim is there.
    assert device.asked == [120, 0]


# Its device goes elsewhere.


@ensureDeferred
async def test_commands_follow_a_device_to_another_instance(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = one.login()
    one.send("c1", timeout=100)
    await one.has_written(device, "c1")
    for command_id in ("c2", "c3", "c4"):
        one.send(command_id)
    await one.has_read(4)
    newer = two.login()
    await two.until(lambda: registry(redis) == {DEVICE: "two"}, "registered")
    one.clock.advance(30)  # looks at the registry, and sees that the device has moved
    await one.until(lambda: device.closed, "noticed")
    for number in (1, 2, 3):
        await two.has_written(newer, *("c2", "c3", "c4")[:number])
        newer.say("an answer")
    await two.until(lambda: len(fates(redis)) == 4, "all have ended")
    assert fates(redis) == {
        "c1": "failed/disconnected",
        **dict.fromkeys(("c2", "c3", "c4"), "responded"),
    }
    assert device.written == ["c1"]
    await two.is_idle()
    assert is_empty(redis, STREAM)
    assert is_empty(redis, outbound("two"))


@ensureDeferred
async def test_a_command_for_a_device_that_is_elsewhere_is_passed_on(
    instances: Instances, redis: RedisServer
) -> None:
    one, two = await instances.start("one"), await instances.start("two")
    device = two.login()
    await two.until(lambda: registry(redis) == {DEVICE: "two"}, "registered")
    one.send("c1")
    await two.has_written(device, "c1")
    assert is_empty(redis, STREAM)


@ensureDeferred
async def test_where_nobody_waits_a_command_for_a_device_that_is_nowhere_fails(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start(waits=False)
    one.send("c1")
    await is_told(one, redis, {"c1": "failed/offline"})
    device = one.login(busy=True)
    one.send("c2")
    await one.has_read(1)
    device.close()
    await is_told(one, redis, {"c2": "failed/offline"})
