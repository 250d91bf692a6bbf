"""Tests of the delivery: malformed and repeated entries, errors of Redis, and stops."""

from __future__ import annotations

from typing import Any, Final

import pytest
from twisted.logger import capturedLogs

from tests.unit.commands.doubles import DEVICE, OTHER, DeliveryBench
from tracker.commands.delivery import MIN_RETRY_DELAY, STOP_GRACE, STOP_TIMEOUT
from tracker.commands.ledger import Effect
from tracker.commands.retrying import MAX_RETRY_DELAY
from tracker.errors import Refused, Unavailable
from tracker.observe.ratelimit import MAX_LINES


@pytest.fixture
def one() -> DeliveryBench:
    return DeliveryBench().begin()


# Malformed entries, and second entries of a command.

MALFORMED: Final[dict[str, dict[str, Any]]] = {
    "no device": {"device_id": ""},
    "a bad device": {"device_id": "a12345"},
    "no text": {"payload": ""},
    "a long text": {"payload": "x" * 4097},
    "no UTF-8": {"payload": b"\xff"},
    "no expiry": {"expires_at": ""},
    "a bad expiry": {"expires_at": "tomorrow"},
    "no offset": {"expires_at": "2199-01-01T00:00:00"},
    "a bad timeout": {"timeout": "0"},
    "a bad codec": {"codec": "12 or so"},
    "many fields": {f"field{number}": "" for number in range(100)},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_entry_is_refused_and_later_commands_are_delivered(
    case: str, one: DeliveryBench
) -> None:
    device = one.login()
    one.send("c1", **MALFORMED[case])
    one.send("c2")
    assert one.ended == {"c1": "failed/malformed"}
    assert one.ledger.texts["c1"] != ""
    assert device.written == ["c2"]
    assert one.delivery.held == 1


@pytest.mark.parametrize("command_id", [None, "", "x" * 65, "two words", b"\xff"])
def test_entry_without_a_usable_id_gets_a_response_without_an_id(
    command_id: Any, one: DeliveryBench
) -> None:
    one.send("", command_id=command_id)
    assert one.ended == {"": "failed/malformed"}


def test_log_lines_for_malformed_entries_are_limited(one: DeliveryBench) -> None:
    with capturedLogs() as captured:
        for number in range(3 * MAX_LINES):
            one.send(f"c{number}", payload="")
    lines = [event for event in captured if "is not a command" in str(event.get("log_format"))]
    assert len(lines) == MAX_LINES
    assert one.delivery.held == 0


@pytest.mark.parametrize("created", [True, False], ids=["new group", "old group"])
def test_second_entry_of_a_command_is_processed_after_the_first(created: bool) -> None:
    one = DeliveryBench(created=created).begin()
    device = one.login(busy=True)
    for _ in range(3):
        one.send("c1")
    assert one.delivery.held == 3
    device.free()
    one.send("c1")  # while the command is outstanding
    device.answer("an answer")
    one.send("c1")  # after it has ended
    one.send("c2")
    assert device.written == ["c1", "c2"]
    assert one.ended == {"c1": "responded"}
    assert one.delivery.held == 1


@pytest.mark.parametrize("first", ["queued", "outstanding"])
def test_second_entry_for_another_device_is_not_written(first: str, one: DeliveryBench) -> None:
    device, other = one.login(busy=first == "queued"), one.login(OTHER)
    one.send("c1")
    one.send("c1", OTHER)
    assert one.delivery.held == 2
    device.free()
    assert device.written == ["c1"]
    device.answer("an answer")
    assert one.ended == {"c1": "responded"}
    assert other.written == []
    assert one.delivery.held == 0


def test_second_entry_replaces_a_first_entry_that_was_lost(one: DeliveryBench) -> None:
    device = one.login(busy=True)
    for _ in range(4):
        one.send("c1")
    assert one.delivery.entries.held == 4
    one.ledger.effects["claim", "c1"] = [Effect.GONE]
    device.free()
    assert device.written == ["c1"]
    device.answer("an answer")
    assert one.ended == {"c1": "responded"}
    one.send("c2")
    assert device.written == ["c1", "c2"]
    assert one.delivery.entries.held == 1


def test_deleted_entry_is_acknowledged() -> None:
    one = DeliveryBench()
    one.reader.unfinished_entries = [one.deleted("7-0")]
    one.begin()
    assert one.ledger.calls == [("drop", "7-0")]
    assert one.delivery.held == 0


def test_entry_that_is_read_twice_is_delivered_once(one: DeliveryBench) -> None:
    """Read pending entries again, as after a lost connection to Redis."""
    device = one.login(busy=True)
    entries = [one.send("c1"), one.send("c1"), one.send("c2")]
    one.reader.unfinished_entries = entries
    one.reader.errors.append(Unavailable("connection lost"))
    one.send("c3")
    assert one.reports[-1] is not None
    one.clock.advance(MIN_RETRY_DELAY)
    assert one.reports[-1] is None
    assert one.delivery.held == 4
    device.free()
    for _ in range(3):
        device.answer("an answer")
    assert device.written == ["c1", "c2", "c3"]
    assert one.ledger.called("recover") == ["c1"]  # the second entry
    assert one.delivery.held == 0


# Operations that Redis refuses.


def test_refusal_delays_only_the_commands_of_the_same_device(one: DeliveryBench) -> None:
    device = one.login()
    one.ledger.errors["offer"] = [Refused("WRONGTYPE"), Refused("WRONGTYPE")]
    one.send("d1", OTHER)
    one.send("d2", OTHER)
    one.send("c1")
    assert device.written == ["c1"]
    device.answer("an answer")
    assert one.ended == {"c1": "responded"}
    assert "outbound:one: entry 1-0 cannot be processed: WRONGTYPE" in (one.reports[-1] or "")
    one.clock.advance(MAX_RETRY_DELAY)
    assert one.reports[-1] is not None
    one.clock.advance(MAX_RETRY_DELAY)
    assert one.ledger.called("offer") == ["d1", "d1", "d1", "d2"]
    assert one.reports[-1] is None
    assert one.delivery.held == 0


@pytest.mark.parametrize("operation", ["claim", "delivered", "finish"])
def test_operation_on_the_ledger_is_repeated_until_redis_is_available(
    operation: str, one: DeliveryBench
) -> None:
    one.ledger.errors[operation] = [Unavailable("no connection")] * 3
    device = one.login()
    one.send("c1", timeout=1000)
    for _ in range(3):
        one.clock.advance(MAX_RETRY_DELAY)
        if device.written and one.backlog()[1]:
            device.answer("an answer")
    one.clock.pump([MAX_RETRY_DELAY] * 3)
    assert one.ended == {"c1": "responded"}
    assert device.written == ["c1"]
    assert one.ledger.called(operation) == ["c1"] * 4
    assert one.reports[-1] is None  # the connection to Redis has a condition of its own


def test_failed_queue_is_reported_and_other_queues_continue(one: DeliveryBench) -> None:
    device, other = one.login(), one.login(OTHER)
    one.ledger.errors["claim"] = [ZeroDivisionError("a bug")]
    with capturedLogs() as captured:
        one.send("c1")
    assert sum("log_failure" in event for event in captured) == 1
    assert DEVICE in (one.reports[-1] or "")
    one.send("d1", OTHER)
    assert other.written == ["d1"]
    one.send("c2")
    assert device.written == []
    assert one.backlog() == (2, False)
    one.reader.errors.append(Unavailable("connection lost"))
    one.send("d2", OTHER)
    one.clock.advance(MIN_RETRY_DELAY)
    assert DEVICE in (one.reports[-1] or "")
    other.answer("an answer")
    stopped = one.stop()
    one.clock.advance(STOP_GRACE)
    assert stopped == [None]


# Stopping.


def test_stop_waits_for_an_answer_and_passes_on_queued_commands(one: DeliveryBench) -> None:
    device = one.login()
    for command_id in ("c1", "c2", "c3"):
        one.send(command_id)
    stopped = one.stop()
    one.clock.advance(STOP_GRACE / 2)
    assert not stopped
    device.answer("just in time")
    assert stopped == [None]
    assert one.ended == {"c1": "responded"}
    assert device.written == ["c1"]
    assert one.ledger.called("offer") == ["c2", "c3"]
    # The device is still registered here: the commands that were passed on must not be fetched.
    assert one.fetched == []
    assert one.clock.getDelayedCalls() == []


def test_stop_limits_the_wait_for_an_answer(one: DeliveryBench) -> None:
    one.login()
    for command_id in ("c1", "c2"):
        one.send(command_id)
    stopped = one.stop()
    one.clock.advance(STOP_GRACE)
    assert stopped == [None]
    assert one.ended == {"c1": "failed/disconnected"}
    assert one.ledger.called("offer") == ["c2"]


@pytest.mark.parametrize("when", ["queued", "claimed", "held back"])
def test_stop_passes_on_unwritten_commands(when: str, one: DeliveryBench) -> None:
    device = one.login(busy=when == "queued")
    if when == "claimed":
        device.busy_next = [False, True]
    if when == "held back":
        one.send("c1", timeout=10)
        one.clock.advance(10)
    one.send("c2")
    assert one.stop() == [None]
    assert one.ledger.calls[-1] == ("return" if when == "claimed" else "offer", "c2")
    assert "c2" not in device.written
    assert one.fetched == []


def test_command_claimed_during_a_stop_is_not_written(one: DeliveryBench) -> None:
    gate = one.ledger.close("claim")
    device = one.login()
    one.send("c1")
    stopped = one.stop()
    gate.callback(None)
    assert stopped == [None]
    assert device.written == []
    assert one.ledger.calls == [("claim", "c1"), ("return", "c1")]


def test_stop_ends_at_its_timeout_if_redis_does_not_reply(one: DeliveryBench) -> None:
    one.login(busy=True)
    one.ledger.close("offer")
    one.send("c1")
    stopped = one.stop()
    one.clock.advance(STOP_TIMEOUT - 0.1)
    assert not stopped
    one.clock.advance(0.1)
    assert stopped == [None]
    assert one.delivery.held == 1


def test_delivery_that_is_stopped_before_it_begins_reads_nothing() -> None:
    one = DeliveryBench()
    one.send("c1")
    assert one.stop() == [None]
    one.begin()
    assert one.ledger.calls == []
    assert len(one.reader.appended) == 1
