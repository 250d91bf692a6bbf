"""Commands on their way through one instance, to devices without sockets, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs

from tests.integration.instances import Device, Instance, Instances
from tests.integration.ledgers import (
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
from tracker.ingestion.courier import RETRY, Timing
from tracker.ingestion.delivery import BATCH, REJECTION_LINES, STOP_GRACE, STOP_TIMEOUT
from tracker.streams import commands as scripts
from tracker.streams.connection import Unavailable
from tracker.streams.script import Script

STREAM: Final = outbound("one")


@pytest_twisted.async_yield_fixture
async def instances(redis: RedisServer) -> AsyncIterator[Instances]:
    instances = Instances(redis)
    yield instances
    if not redis.answers():
        redis.start()
    await instances.end()


def fate(redis: RedisServer, command_id: str = "c1") -> str:
    return (redis.client.get(sent(command_id)) or b"").decode()


def has_claimed(redis: RedisServer, command_id: str = "c1") -> Callable[[], bool]:
    return lambda: fate(redis, command_id).startswith("sent ")


def have_ended(redis: RedisServer, number: int) -> Callable[[], bool]:
    return lambda: len(fates(redis)) == number


async def is_told(
    one: Instance, redis: RedisServer, expected: dict[str, str], step: float = 0.0
) -> None:
    """Wait until all these commands have ended so, and nothing is left of them."""
    await one.until(lambda: expected.items() <= fates(redis).items(), f"ended: {expected}", step)
    await one.until(lambda: is_empty(redis, STREAM), "the stream is empty", step)
    await one.is_idle()
    for command_id, how in expected.items():
        assert fate(redis, command_id).startswith(f"done {how.partition('/')[0]} ")


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
    device.say("INI:2026/1/1", codec="14", refused=refused)
    await is_told(one, redis, {"c1": status})
    assert one.delivery.load(DEVICE) == (0, False)
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


async def claimed(one: Instance, redis: RedisServer, **options: Any) -> Device:
    """A device that is busy again when a command for it has been claimed."""
    device = one.login()
    device.moods = [False, True]
    one.send("c1", **options)
    await one.until(has_claimed(redis), "claimed")
    await one.until(lambda: device.waiting, "waits for its turn")
    return device


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


async def timed_out(one: Instance, redis: RedisServer) -> Device:
    """A device that has not answered its first command."""
    device = one.login()
    one.send("c1", timeout=10)
    await one.has_written(device, "c1")
    one.clock.advance(10)
    await is_told(one, redis, {"c1": "failed/timeout"})
    return device


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


# Entries that are no commands, or not the first ones.

BAD: Final[dict[str, dict[Any, Any]]] = {
    "no device": {"device_id": ""},
    "a bad device": {"device_id": "12345"},
    "no text": {"payload": ""},
    "a long text": {"payload": "x" * 4097},
    "no UTF-8": {"payload": b"\xff"},
    "no expiry": {"expires_at": ""},
    "a bad expiry": {"expires_at": "tomorrow"},
    "no offset": {"expires_at": "2199-01-01T00:00:00"},
    "a bad timeout": {"timeout": "0"},
    "a bad codec": {"codec": "12 or so"},
    "no such codec": {"codec": "15"},
    "many fields": {f"field{number}": "" for number in range(100)},
}


@ensureDeferred
@pytest.mark.parametrize("bad", BAD)
async def test_what_is_no_command_is_refused_and_others_go_on(
    bad: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    content: dict[Any, Any] = fields("c1", DEVICE) | BAD[bad]
    redis.client.xadd(STREAM, content)
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await is_told(one, redis, {"c1": "failed/malformed", "c2": "responded"})
    assert responses(redis)["c1"][-1]["response"] != ""


@ensureDeferred
@pytest.mark.parametrize("command_id", [None, "", "x" * 65, "two words", b"\xff"])
async def test_what_has_no_usable_id_gets_a_response_without(
    command_id: Any, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login()
    content: dict[Any, Any] = fields("", DEVICE) | {"command_id": command_id}
    if command_id is None:
        del content["command_id"]
    redis.client.xadd(STREAM, content)
    await one.until(lambda: said(redis) == [("", "failed", "malformed")], "refused")
    assert responses(redis)[""][0]["device_id"] == DEVICE
    await one.until(lambda: is_empty(redis, STREAM), "gone")
    assert redis.client.keys("commands:sent:*") == []


@ensureDeferred
async def test_many_entries_that_are_no_commands_do_not_fill_the_log(
    instances: Instances, redis: RedisServer
) -> None:
    with capturedLogs() as captured:
        one = await instances.start()
        for _ in range(3 * REJECTION_LINES):
            redis.client.xadd(STREAM, {"colour": "red"})
        await one.until(lambda: len(said(redis)) == 3 * REJECTION_LINES, "refused")
    lines = [event for event in captured if "is no command" in str(event.get("log_format"))]
    assert len(lines) == REJECTION_LINES
    assert is_empty(redis, STREAM)


@ensureDeferred
async def test_a_second_entry_of_a_command_makes_nothing_happen(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    for _ in range(3):
        one.send("c1")
    await one.until(lambda: one.delivery._entries == 3, "all are known")
    device.free()
    await one.has_written(device, "c1")
    one.send("c1")  # while it is outstanding
    await one.until(lambda: one.delivery._entries == 4, "known, too")
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    one.send("c1")  # when it is over
    one.send("c2")
    await one.has_written(device, "c1", "c2")
    device.say("an answer")
    await is_told(one, redis, {"c2": "responded"})
    assert len(responses(redis)["c1"]) == 2


@ensureDeferred
async def test_one_of_the_other_entries_takes_the_place_of_one_that_is_lost(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    first, *_ = [one.send("c1") for _ in range(4)]
    await one.until(lambda: one.delivery._entries == 4, "all are known")
    redis.client.xack(STREAM, "ingest", first)
    redis.client.xdel(STREAM, first)
    device.free()
    await one.has_written(device, "c1")
    device.say("an answer")
    await is_told(one, redis, {"c1": "responded"})
    one.send("c2")
    await one.has_written(device, "c1", "c2")
    assert one.delivery._entries == 1


@ensureDeferred
async def test_what_redis_refuses_for_one_device_is_nothing_to_the_others(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    redis.client.set(waiting(OTHER), "no stream")
    one.send("c1", OTHER)
    one.send("c2")
    await one.has_written(device, "c2")
    device.say("an answer")
    await one.until(have_ended(redis, 1), "answered")
    assert "cannot be seen to: WRONGTYPE" in (one.reports[-1] or "")
    redis.client.delete(waiting(OTHER))
    await one.until(lambda: redis.client.xlen(waiting(OTHER)) == 1, "waits", step=0.5)
    await one.until(lambda: one.reports[-1] is None, "well again")
    assert one.delivery._entries == 0
    assert fates(redis) == {"c2": "responded"}


@ensureDeferred
async def test_an_entry_that_somebody_has_deleted_is_forgotten(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    one.send("c1")
    await one.has_read(1)
    await one.crash()
    redis.client.xtrim(STREAM, maxlen=0)
    again = await instances.start()
    await again.until(lambda: is_empty(redis, STREAM), "forgotten")
    assert said(redis) == []
    assert device.written == []


# A process dies, and the next one of its name finds what it has left.


@ensureDeferred
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "away"])
async def test_what_a_crash_leaves_is_seen_to_by_the_next_process(
    connected: bool, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    devices = {name: f"35630704244000{number}" for number, name in enumerate("abcde")}
    sessions = {name: one.login(devices[name]) for name in "abce"}
    # a: outstanding; b: claimed; c: queued; d: never read; e: over, with an entry left.
    sessions["b"].moods = [False, True]
    sessions["c"].busy = True
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
    await again.until(lambda: {"a", "b"} <= fates(redis).keys(), "in doubt")
    if not connected:
        await again.until(lambda: is_empty(redis, STREAM), "passed on")
        assert command_ids(redis, waiting(devices["c"])) == ["c"]
        assert command_ids(redis, waiting(devices["d"])) == ["d"]
        newer = {name: again.login(devices[name]) for name in "abcde"}
    for name in "cd":
        await again.has_written(newer[name], name)
        newer[name].say("an answer")
    await is_told(again, redis, {"a": "failed/in_doubt", "b": "failed/in_doubt", "c": "responded"})
    assert fates(redis) == {
        **dict.fromkeys("ab", "failed/in_doubt"),
        **dict.fromkeys("cd", "responded"),
    }
    assert sessions["a"].written == ["a"]
    assert [newer[name].written for name in "abe"] == [[], [], []]
    assert [sessions[name].written for name in "bc"] == [[], []]


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
        one.redis.interrupt(scripts._DELIVERED, before=unavailable)
    one.send("c1")
    await one.has_written(device, "c1")
    await one.until(lambda: fate(redis).startswith(f"{state} "), state)
    await one.crash()
    redis.client.xgroup_destroy(STREAM, "ingest")

    again = instances.prepare()
    await again.ready()
    newer = again.login()
    again.delivery.begin()
    await is_told(again, redis, {"c1": "failed/in_doubt"})
    assert newer.written == []


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
    assert fates(redis) == {"c1": "responded"}
    assert device.written == ["c1"]
    # Until its connection is closed the device still is registered here: nothing may be
    # brought back on that account.
    one.clock.advance(0)
    assert one.fetched == []
    assert command_ids(redis, waiting()) == ["c2", "c3"]
    assert is_empty(redis, STREAM)


@ensureDeferred
async def test_a_stop_does_not_wait_for_ever_for_an_answer(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    for command_id in ("c1", "c2"):
        one.send(command_id)
    await one.has_written(device, "c1")
    await one.has_read(2)
    await one.stop_delivery(step=STOP_GRACE / 10)
    assert fates(redis) == {"c1": "failed/disconnected"}
    assert command_ids(redis, waiting()) == ["c2"]
    assert is_empty(redis, STREAM)


@ensureDeferred
@pytest.mark.parametrize("when", ["queued", "claimed", "held back", "not logged in"])
async def test_a_stop_passes_on_what_is_not_written(
    when: str, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    match when:
        case "queued":
            one.login(busy=True)
            one.send("c2")
            await one.has_read(1)
        case "claimed":
            device = await claimed(one, redis, text="c2")
            assert device.written == []
        case "held back":
            await timed_out(one, redis)
            one.send("c2")
            await one.has_read(1)
        case "not logged in":
            one.send("c2")
    await one.until(lambda: redis.client.xlen(STREAM) == 0 or one.delivery._held, "read")
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
    await one.until(lambda: fate(redis).startswith("delivered "), "delivered")
    await one.until(lambda: len(one.delivery._held) >= 2, "held")
    redis.kill()
    await one.stop_delivery(step=STOP_TIMEOUT / 20)
    await one.crash()
    redis.start()
    assert busy.written == []

    again = await instances.start()
    await again.until(lambda: fates(redis) == {"c1": "failed/in_doubt"}, "in doubt")
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
    one.redis.interrupt(scripts._OFFER, before=redis.suspend)
    one.send("c2", OTHER)  # is nowhere
    await one.until(lambda: one.redis.happened, "about to be passed on")
    try:
        await one.stop_delivery(step=STOP_TIMEOUT / 20)
    finally:
        redis.resume()


@ensureDeferred
async def test_a_stop_before_it_was_told_to_begin(instances: Instances, redis: RedisServer) -> None:
    one = instances.prepare()
    await one.ready()
    one.send("c1")
    await one.stop_delivery()
    one.delivery.begin()
    assert command_ids(redis, STREAM) == ["c1"]
    assert redis.client.xinfo_groups(STREAM) == []


# Redis goes away, or forgets.

STEPS: Final[dict[str, Script]] = {
    "claim": scripts._CLAIM,
    "delivered": scripts._DELIVERED,
    "finish": scripts._FINISH,
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
        await one.has_written(device, "c1", step=RETRY)
        device.say("an answer")
    # It goes on with the next one.
    await one.connected()

    def next_one() -> bool:
        return len(device.written) > 1 or device.written == ["c2"]

    await one.until(lambda: not one.delivery._held, "at its end", step=RETRY)
    if what == "flushed":
        live(redis, "one")
    one.send("c2")
    await one.until(next_one, "the next one", step=RETRY)
    device.say("another answer")
    await one.until(lambda: "c2" in fates(redis), "answered", step=RETRY)
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
    await one.has_written(device, "c1", step=RETRY)
    if when == "queued":
        device.say("an answer")
    await is_told(one, redis, {"c1": "responded"}, RETRY)
    await one.until(lambda: one.reports[-1] is None, "read again", step=RETRY)
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
    await one.until(lambda: len(one.delivery._held) == 3, "read again", step=0.1)
    for written in (["c1"], ["c1", "c2"], ["c1", "c2", "c3"]):
        await one.has_written(device, *written)
        device.say("an answer")
    await is_told(one, redis, {"c1": "responded", "c2": "responded", "c3": "responded"})


@ensureDeferred
async def test_no_more_are_held_than_there_is_room_for(
    instances: Instances, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.ingestion.delivery.MOST_HELD", 3)
    one = await instances.start()
    device = one.login()
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    most = 0
    for number in range(1, 11):
        await one.has_written(device, *ids[:number])
        await one.has_read(min(3, 11 - number))
        most = max(most, redis.client.xpending(STREAM, "ingest")["pending"])
        device.say("an answer")
    await is_told(one, redis, dict.fromkeys(ids, "responded"))
    assert most == 3


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are held at once, and fewer for one device."""
    monkeypatch.setattr("tracker.ingestion.delivery.MOST_HELD", 4)
    monkeypatch.setattr("tracker.ingestion.delivery.MOST_OF_ONE", 2)


@ensureDeferred
async def test_many_commands_for_one_device_leave_room_for_those_of_others(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device, other = one.login(busy=True), one.login(OTHER)
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    one.send("other", OTHER)
    await one.has_written(other, "other")
    other.say("an answer")
    await one.has_read(10)
    assert one.delivery.load(DEVICE) == (10, False)
    assert one.delivery._entries == 2
    device.free()
    for number in range(1, 10):
        await one.has_written(device, *ids[:number])
        device.say("an answer")
    await one.has_written(device, *ids)
    one.send("late")
    device.say("an answer")
    await one.has_written(device, *ids, "late")
    device.say("an answer")
    await is_told(one, redis, dict.fromkeys([*ids, "other", "late"], "responded"))
    assert one.delivery._behind == {}
    assert one.delivery._ids_behind == 0


@ensureDeferred
async def test_what_is_behind_goes_along_when_the_device_leaves(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login(busy=True)
    ids = [one.send(f"c{number}") for number in range(9)]
    lost = ids[5]
    one.send("short", expires_in=30)
    await one.has_read(10)
    redis.client.xack(STREAM, "ingest", lost)
    redis.client.xdel(STREAM, lost)
    redis.kill()
    redis.start()
    await one.connected()
    await one.has_read(10)
    one.clock.advance(60)
    device.close()
    await one.until(lambda: is_empty(redis, STREAM), "passed on", step=RETRY)
    await one.is_idle()
    assert command_ids(redis, waiting()) == [f"c{number}" for number in range(9) if number != 5]
    assert fates(redis) == {"short": "expired"}


@ensureDeferred
async def test_what_is_behind_is_left_to_the_next_start_by_a_stop(
    few: None, instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    one.login(busy=True)
    for number in range(9):
        one.send(f"c{number}")
    await one.has_read(9)
    await one.stop_delivery()
    left = redis.client.xlen(STREAM)
    assert left + redis.client.xlen(waiting()) == 9
    assert redis.client.xpending(STREAM, "ingest")["pending"] == left


@ensureDeferred
async def test_a_command_expires_behind_one_that_waits(
    instances: Instances, redis: RedisServer
) -> None:
    one = await instances.start()
    device = one.login()
    one.send("c1", timeout=3000)
    await one.has_written(device, "c1")
    one.send("long")
    one.send("short", expires_in=60)
    one.send("shorter", expires_in=30)
    await one.has_read(4)
    one.clock.advance(31)
    await one.until(lambda: fates(redis) == {"shorter": "expired"}, "one has expired")
    assert one.delivery.load(DEVICE) == (2, True)
    one.clock.advance(30)
    await one.until(lambda: fates(redis).get("short") == "expired", "both have")
    device.say("an answer")
    await one.has_written(device, "c1", "long")
    device.say("an answer")
    await is_told(
        *(one, redis),
        {"c1": "responded", "long": "responded", "short": "expired", "shorter": "expired"},
    )


@ensureDeferred
async def test_a_stop_while_there_is_no_room(
    instances: Instances, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.ingestion.delivery.MOST_HELD", 2)
    one = await instances.start()
    one.login(busy=True)
    ids = [f"c{number}" for number in range(4)]
    for command_id in ids:
        one.send(command_id)
    await one.until(lambda: one.delivery._room, "no room")
    await one.stop_delivery()
    assert command_ids(redis, waiting()) == ids[:2]
    # The others were never read: the next process does, or a janitor.
    assert command_ids(redis, STREAM) == ids[2:]
