"""Tests of a device's command queue: order, expiry, passing on, and limits."""

from __future__ import annotations

import pytest

from tests.unit.commands.doubles import DEVICE, OTHER, DeliveryBench
from tracker.commands.ledger import Effect


@pytest.fixture
def one() -> DeliveryBench:
    return DeliveryBench().begin()


def test_commands_are_written_in_order_one_at_a_time(one: DeliveryBench) -> None:
    device, other = one.login(), one.login(OTHER)
    ids = [f"c{number}" for number in range(5)]
    for command_id in ids:
        one.send(command_id)
    one.send("d1", OTHER)
    assert other.written == ["d1"]  # devices do not wait for each other
    for number in range(1, 6):
        assert one.backlog() == (5 - number, True)
        assert device.written == ids[:number]
        device.answer(f"answer {number}")
    other.answer("another answer")
    assert one.ended == dict.fromkeys([*ids, "d1"], "responded")
    assert one.ledger.texts["c3"] == "answer 4"


def test_many_devices_are_served_concurrently(one: DeliveryBench) -> None:
    devices = [f"35630704244{number:04}" for number in range(60)]
    connections = {device_id: one.login(device_id) for device_id in devices}
    ids = {device_id: [f"{device_id}-{number}" for number in range(5)] for device_id in devices}
    for number in range(5):
        for device_id in devices:
            one.send(ids[device_id][number], device_id)
    for _ in range(5):
        for connection in connections.values():
            connection.answer("an answer")
    for device_id, connection in connections.items():
        assert connection.written == ids[device_id]
    assert len(one.ended) == 300
    assert one.delivery.held == 0
    for connection in connections.values():
        connection.close()
    assert one.delivery._queues == {}


def test_commands_are_passed_on_in_order_when_the_connection_ends(one: DeliveryBench) -> None:
    device = one.login(busy=True)
    for number in range(3):
        one.send(f"c{number}")
    device.close()
    assert one.ledger.calls == [("offer", "c0"), ("offer", "c1"), ("offer", "c2")]
    assert one.delivery.held == 0
    assert one.fetched == []
    assert one.delivery._queues == {}


def test_commands_for_an_unconnected_device_are_passed_on(one: DeliveryBench) -> None:
    one.send("c1")
    one.send("c2")
    assert one.ledger.called("offer") == ["c1", "c2"]
    assert one.delivery._queues == {}


def test_command_that_starts_waiting_after_its_device_reconnected_is_fetched(
    one: DeliveryBench,
) -> None:
    gate = one.ledger.close("offer")
    one.send("c1")
    device = one.login()
    one.send("c2")
    gate.callback(None)
    assert one.ledger.called("offer") == ["c1"]
    assert one.fetched == [DEVICE]
    assert device.written == ["c2"]


def test_moved_command_is_not_fetched(one: DeliveryBench) -> None:
    gate = one.ledger.close("offer")
    one.ledger.effects["offer", "c1"] = [Effect.MOVED]
    one.send("c1")
    one.login()
    gate.callback(None)
    assert one.fetched == []


def test_queued_command_is_written_on_a_newer_connection(one: DeliveryBench) -> None:
    device = one.login(busy=True)
    one.send("c1")
    newer = one.login()
    device.close()
    assert newer.written == ["c1"]
    newer.answer("an answer")
    assert one.ended == {"c1": "responded"}
    assert device.written == []
    assert one.ledger.called("offer") == []


def test_command_that_has_expired_is_not_written(one: DeliveryBench) -> None:
    device = one.login()
    one.send("c1", expires_in=-1)
    one.send("c2", OTHER, expires_in=-1)
    assert one.ended == {"c1": "expired", "c2": "expired"}
    assert device.written == []
    assert one.ledger.called("offer") == []


def test_command_expires_while_its_device_is_busy(one: DeliveryBench) -> None:
    device = one.login(busy=True)
    one.send("c1", expires_in=60)
    one.send("c2", expires_in=600)
    one.clock.advance(55)
    assert one.backlog() == (2, False)
    one.clock.advance(10)
    assert one.ended == {"c1": "expired"}
    device.free()
    assert device.written == ["c2"]


def test_queued_commands_expire_while_an_answer_is_awaited(one: DeliveryBench) -> None:
    device = one.login()
    one.send("c1", timeout=3000)
    one.send("long")
    one.send("short", expires_in=60)
    one.send("shorter", expires_in=30)
    one.send("past", expires_in=-1)
    one.clock.advance(1)
    assert one.ended == {"past": "expired"}
    one.clock.advance(30)
    assert one.ended == {"past": "expired", "shorter": "expired"}
    assert one.backlog() == (2, True)
    one.clock.advance(30)
    assert one.ended["short"] == "expired"
    device.answer("an answer")
    assert device.written == ["c1", "long"]
    device.answer("an answer")
    assert one.ended["long"] == "responded"
    assert one.clock.getDelayedCalls() == []


def test_command_that_expires_during_passing_on_is_not_passed_on(
    one: DeliveryBench,
) -> None:
    device = one.login(busy=True)
    one.send("c1")
    one.send("c2", expires_in=30)
    one.send("c2", expires_in=30)
    gate = one.ledger.close("offer")
    device.close()
    one.clock.advance(31)
    assert one.ended == {"c2": "expired"}
    gate.callback(None)
    assert one.ledger.called("offer") == ["c1"]
    assert one.delivery.held == 0


def test_command_of_an_earlier_process_expires_only_if_it_was_not_claimed() -> None:
    one = DeliveryBench()
    one.reader.unfinished_entries = [
        one.entry("c1", timeout=100),
        one.entry("claimed", expires_in=30),
        one.entry("open", expires_in=30),
    ]
    one.ledger.effects["recover", "claimed"] = [Effect.OVER]
    device = one.login()
    one.begin()
    assert device.written == ["c1"]
    one.clock.advance(31)
    assert one.ended == {"open": "expired"}
    assert one.backlog() == (0, True)


def test_command_of_an_earlier_process_is_recovered_first() -> None:
    one = DeliveryBench()
    one.reader.unfinished_entries = [one.entry("over"), one.entry("c1")]
    one.ledger.effects["recover", "over"] = [Effect.OVER]
    device = one.login()
    one.begin()
    assert device.written == ["c1"]
    operations = ["recover", "recover", "claim", "delivered"]
    assert one.ledger.calls == list(zip(operations, ["over", "c1", "c1", "c1"], strict=True))


# Limits.


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold at most four entries, and two for one device."""
    monkeypatch.setattr("tracker.commands.entries.MAX_HELD", 4)
    monkeypatch.setattr("tracker.commands.queue.MAX_PER_DEVICE", 2)


def test_many_commands_for_one_device_do_not_block_other_devices(
    small_limits: None, one: DeliveryBench
) -> None:
    device, other = one.login(busy=True), one.login(OTHER)
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    one.send("other", OTHER)
    assert other.written == ["other"]
    other.answer("an answer")
    assert one.backlog() == (10, False)
    assert one.delivery.entries.held == 2
    assert one.delivery.held == 10
    device.free()
    for number in range(1, 10):
        assert device.written == ids[:number]
        assert one.delivery.entries.held <= 3
        device.answer("an answer")
    one.send("late")
    device.answer("an answer")
    device.answer("an answer")
    assert one.ended == dict.fromkeys([*ids, "other", "late"], "responded")
    assert one.delivery.held == 0


def test_command_received_during_loading_keeps_its_order(
    small_limits: None, one: DeliveryBench
) -> None:
    device = one.login()
    ids = [f"c{number}" for number in range(5)]
    for command_id in ids:
        one.send(command_id)
    gate = one.ledger.close("entry")
    device.answer("an answer")
    device.answer("an answer")
    assert one.backlog() == (3, False)
    one.send("late")
    gate.callback(None)
    for _ in range(4):
        device.answer("an answer")
    assert device.written == [*ids, "late"]


def test_unloaded_entries_are_passed_on_in_order_without_deleted_ones(
    small_limits: None, one: DeliveryBench
) -> None:
    device = one.login(busy=True)
    entries = [one.send(f"c{number}") for number in range(9)]
    del one.ledger.stream[entries[5].id]
    one.send("short", expires_in=30)
    one.clock.advance(60)
    device.close()
    assert one.ledger.called("offer") == [f"c{number}" for number in range(9) if number != 5]
    assert one.ledger.called("drop") == [entries[5].id]
    assert one.ended == {"short": "expired"}
    assert one.delivery.held == 0


def test_stop_leaves_unloaded_entries_in_redis(small_limits: None, one: DeliveryBench) -> None:
    one.login(busy=True)
    for number in range(9):
        one.send(f"c{number}")
    assert one.stop() == [None]
    assert one.ledger.called("offer") == ["c0", "c1"]
    assert one.delivery.held == 7


def test_number_of_held_entries_is_limited(
    one: DeliveryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.commands.entries.MAX_HELD", 3)
    device = one.login()
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    for number in range(1, 11):
        assert device.written == ids[:number]
        assert one.delivery.held == min(3, 11 - number)
        device.answer("an answer")
    assert one.ended == dict.fromkeys(ids, "responded")


def test_number_of_unloaded_entries_is_limited(
    small_limits: None, one: DeliveryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.commands.entries.MAX_UNLOADED", 3)
    device = one.login()
    ids = [f"c{number}" for number in range(10)]
    for command_id in ids:
        one.send(command_id)
    # One is written, two are queued and three are unloaded; the others stay in Redis.
    assert one.delivery.held == 6
    assert one.backlog() == (5, True)
    for _ in ids:
        device.answer("an answer")
    assert device.written == ids
    assert one.delivery.held == 0


def test_stop_while_the_limit_is_reached_leaves_unread_entries(
    one: DeliveryBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.commands.entries.MAX_HELD", 2)
    one.login(busy=True)
    for number in range(4):
        one.send(f"c{number}")
    assert one.delivery.entries.room == 0
    assert one.stop() == [None]
    assert one.ledger.called("offer") == ["c0", "c1"]
    # The others were never read; the next process or a janitor reads them.
    assert len(one.reader.appended) == 2
