"""Appends to a stream: batches, retries, stops and the watchdog."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused, Unanswered
from tracker.ingestion.publisher import (
    CONFIRM_TIMEOUT,
    MAX_BYTES,
    MAX_IN_FLIGHT,
    MAX_RECORDS,
    RETRY_DELAY,
    STOP_TIMEOUT,
    WATCHDOG_TIMEOUT,
    StreamPublisher,
)
from tracker.interfaces import NotAppended
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition, Watchdog
from tracker.position import Entry

STREAM = "telemetry:teltonika"


def frame(name: str, records: int = 1) -> list[Entry]:
    return [Entry("ts", name, "8", f"{{{number}}}") for number in range(records)]


class Publishing:
    """A running publisher with a Redis whose replies the test gives."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = FakeRedis()
        self.reports: list[str | None] = []
        self.watchdog = Watchdog(WATCHDOG_TIMEOUT, self.clock.seconds)
        self.publisher = StreamPublisher(
            self.clock,
            RedisWriter(self.redis, STREAM),  # type: ignore[arg-type]
            Condition(self.reports.append),
            self.watchdog,
        )
        self.publisher.startService()

    def publish(self, name: str, records: int = 1) -> list[object]:
        """Publish a frame; return a list that receives the result."""
        result: list[object] = []
        self.last: Deferred[None] = self.publisher.publish(frame(name, records))
        self.last.addCallbacks(result.append, lambda failure: result.append(failure.value))
        return result

    def run_turn(self) -> None:
        """Run one reactor turn."""
        self.clock.advance(0)

    def calls(self) -> list[list[str]]:
        """Return the device IDs in each call to Redis that waits for a reply."""
        return [list(arguments[8::3]) for arguments, _ in self.redis.commands]

    def reply(self, call: int = 0) -> None:
        """Confirm a call."""
        arguments, deferred = self.redis.commands.pop(call)
        deferred.callback(len(arguments[7:]) // 3)


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


def test_frames_of_one_reactor_turn_are_sent_in_one_call(publishing: Publishing) -> None:
    results = [publishing.publish(name) for name in "abc"]
    assert not publishing.redis.commands
    publishing.run_turn()
    assert publishing.calls() == [["a", "b", "c"]]
    assert results == [[], [], []]
    publishing.reply()
    assert results == [[None], [None], [None]]


def test_call_is_limited_in_records_and_never_splits_a_frame(publishing: Publishing) -> None:
    half = MAX_RECORDS // 2 + 1
    for name in "abc":
        publishing.publish(name, half)
    publishing.run_turn()
    assert [set(call) for call in publishing.calls()] == [{"a"}, {"b"}, {"c"}]
    assert all(len(call) == half for call in publishing.calls())


def test_full_call_is_sent_before_the_reactor_turn_ends(publishing: Publishing) -> None:
    for name in ("a", "b"):
        publishing.publish(name, MAX_RECORDS // 2)
    assert [set(call) for call in publishing.calls()] == [{"a", "b"}]
    publishing.publish("c")
    assert len(publishing.calls()) == 1
    publishing.run_turn()
    assert [set(call) for call in publishing.calls()] == [{"a", "b"}, {"c"}]


def test_full_call_waits_for_the_retry_delay_after_a_refusal(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.redis.commands.pop()[1].errback(Refused("OOM command not allowed"))
    publishing.publish("b", MAX_RECORDS)
    publishing.run_turn()
    assert publishing.calls() == []
    publishing.clock.advance(RETRY_DELAY)
    assert [set(call) for call in publishing.calls()] == [{"a"}, {"b"}]


def test_number_of_calls_without_a_reply_is_limited(publishing: Publishing) -> None:
    for number in range(MAX_IN_FLIGHT + 2):
        publishing.publish(str(number), MAX_RECORDS)
    publishing.run_turn()
    assert len(publishing.redis.commands) == MAX_IN_FLIGHT
    publishing.reply()
    publishing.run_turn()
    assert len(publishing.redis.commands) == MAX_IN_FLIGHT


def test_new_connection_sends_one_call_until_its_first_reply(publishing: Publishing) -> None:
    # Later calls would overtake the first one if the server does not know the script.
    publishing.redis.connections += 1
    for name in ("a", "b", "c"):
        publishing.publish(name, MAX_RECORDS)
    publishing.run_turn()
    assert [set(call) for call in publishing.calls()] == [{"a"}]
    publishing.reply()
    publishing.run_turn()
    assert [set(call) for call in publishing.calls()] == [{"b"}, {"c"}]


def test_unconfirmed_frames_are_appended_again_after_a_lost_connection(
    publishing: Publishing,
) -> None:
    first = publishing.publish("a")
    publishing.run_turn()
    publishing.redis.lose()
    second = publishing.publish("b")
    publishing.clock.advance(60)
    assert (first, second) == ([], [])
    publishing.redis.reconnect()
    publishing.run_turn()
    assert publishing.calls() == [["a", "b"]]
    publishing.reply()
    assert (first, second) == ([None], [None])


@pytest.mark.parametrize("error", ["OOM command not allowed", "READONLY You can't write"])
def test_refused_append_is_reported_and_retried(publishing: Publishing, error: str) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    for _ in range(2):
        publishing.redis.commands.pop()[1].errback(Refused(error))
        assert result == []
        publishing.run_turn()
        assert not publishing.redis.commands
        publishing.clock.advance(RETRY_DELAY)
    assert publishing.reports == [None, f"appends refused: {error}"]
    publishing.reply()
    assert result == [None]
    assert publishing.reports[-1] is None


def test_unanswered_appends_are_reported_until_a_reply(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    publishing.redis.commands.pop()[1].errback(Unanswered("Not received Redis response"))
    publishing.run_turn()
    assert publishing.reports == [None, "Redis does not reply to appends"]
    publishing.redis.connected = False
    publishing.redis.reconnect()  # a PING was answered
    assert publishing.reports[-1] == "Redis does not reply to appends"
    publishing.reply()
    assert result == [None]
    assert publishing.reports[-1] is None


def test_failed_calls_are_retried_in_order(publishing: Publishing) -> None:
    names = [str(number) for number in range(MAX_IN_FLIGHT + 4)]
    for name in names:
        publishing.publish(name, MAX_RECORDS)
    publishing.redis.lose()
    publishing.redis.reconnect()
    sent: list[str] = []
    while len(sent) < len(names):
        publishing.clock.advance(RETRY_DELAY)
        sent += [call[0] for call in publishing.calls()]
        for _ in publishing.calls():
            publishing.reply()
    assert sent == names


def test_stop_ends_when_the_last_frame_is_cancelled(publishing: Publishing) -> None:
    publishing.publish("a")
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    publishing.last.addErrback(lambda _: None).cancel()
    publishing.run_turn()
    assert stopped == [None]


def test_refusal_is_no_longer_reported_when_no_frame_waits(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.redis.commands.pop()[1].errback(Refused("OOM command not allowed"))
    assert publishing.reports[-1] is not None
    publishing.last.cancel()
    publishing.clock.advance(RETRY_DELAY)
    assert publishing.reports[-1] is None
    assert not publishing.redis.commands


def test_call_is_limited_in_bytes(publishing: Publishing) -> None:
    for name in "abc":
        entry = Entry("ts", name, "8", "x" * (MAX_BYTES // 4), "x" * (MAX_BYTES // 4))
        publishing.publisher.publish([entry])
    publishing.run_turn()
    assert publishing.calls() == [["a", "b"], ["c"]]


def test_call_holds_the_maximum_number_of_records(publishing: Publishing) -> None:
    publishing.publish("a", MAX_RECORDS - 1)
    publishing.publish("b")
    publishing.publish("c")
    publishing.run_turn()
    assert [len(call) for call in publishing.calls()] == [MAX_RECORDS, 1]


def test_script_is_sent_again_after_a_restart_of_redis(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    ((arguments, answer),) = publishing.redis.commands
    assert arguments[0] == "EVALSHA"
    publishing.redis.commands.clear()
    answer.errback(Refused("NOSCRIPT No matching script."))
    ((again, _),) = publishing.redis.commands
    assert again[0] == "EVAL"
    assert again[2:] == arguments[2:]
    publishing.reply()
    assert result == [None]


def test_cancelled_frame_is_not_appended(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.last.cancel()
    publishing.publish("b")
    publishing.run_turn()
    assert publishing.calls() == [["b"]]
    assert isinstance(result[0], CancelledError)


def test_memory_is_bounded_while_devices_reconnect_without_redis(
    publishing: Publishing,
) -> None:
    publishing.redis.connected = False
    for number in range(1000):
        publishing.publish(str(number))
        publishing.run_turn()
        publishing.last.cancel()
    assert len(publishing.publisher._waiting) == 0
    assert len(publishing.redis.waiting) == 1


def test_cancelled_frame_under_way_is_not_appended_again(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.last.cancel()
    publishing.redis.lose()
    publishing.redis.reconnect()
    publishing.clock.advance(RETRY_DELAY)
    assert publishing.calls() == []


def test_stop_appends_waiting_frames_and_refuses_new_ones(publishing: Publishing) -> None:
    under_way = publishing.publish("a")
    publishing.run_turn()
    waiting = publishing.publish("b")
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    assert isinstance(publishing.publish("c")[0], NotAppended)
    publishing.reply()
    assert (under_way, waiting, stopped) == ([None], [], [])
    publishing.run_turn()
    publishing.reply()
    assert (waiting, stopped) == ([None], [None])


@pytest.mark.parametrize("later", [False, True])
def test_stop_without_redis_gives_up_waiting_frames(publishing: Publishing, later: bool) -> None:
    if not later:
        publishing.redis.lose()
    result = publishing.publish("a")
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    if later:
        publishing.redis.lose()
        publishing.run_turn()
    assert isinstance(result[0], NotAppended)
    assert stopped == [None]


def test_stop_gives_up_all_frames_although_one_cancels_another(publishing: Publishing) -> None:
    publishing.redis.lose()
    publishing.publish("message")
    message = publishing.last
    publishing.publish("records of the same connection")
    records = publishing.last
    message.addBoth(lambda _: records.cancel())
    other = publishing.publish("another device")
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    assert isinstance(other[0], NotAppended)
    assert stopped == [None]


def test_stop_while_redis_refuses_gives_up_waiting_frames(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    publishing.redis.commands.pop()[1].errback(Refused("OOM command not allowed"))
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    assert isinstance(result[0], NotAppended)
    assert stopped == [None]


def test_stop_of_the_publisher_ends_after_a_timeout(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    stopped: list[object] = []
    others = [publishing.publish(str(number), MAX_RECORDS) for number in range(MAX_IN_FLIGHT)]
    publishing.publisher.stopService().addCallback(stopped.append)
    publishing.clock.advance(STOP_TIMEOUT / 2)
    assert len(publishing.redis.commands) == MAX_IN_FLIGHT
    assert stopped == []
    publishing.clock.advance(STOP_TIMEOUT / 2)
    assert stopped == [None]
    assert result == []
    assert others[:-1] == [[]] * (MAX_IN_FLIGHT - 1)
    assert isinstance(others[-1][0], NotAppended), "this frame was not sent to Redis"


def test_failed_call_during_a_stop_confirms_nothing(publishing: Publishing) -> None:
    result = publishing.publish("a")
    publishing.run_turn()
    stopped: list[object] = []
    publishing.publisher.stopService().addCallback(stopped.append)
    publishing.redis.lose()
    assert isinstance(result[0], NotAppended)
    assert stopped == [None]


def test_publisher_is_stuck_if_waiting_frames_are_not_sent(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.clock.advance(WATCHDOG_TIMEOUT)
    assert not publishing.watchdog.expired
    publishing.clock.advance(1)
    assert publishing.watchdog.expired
    publishing.reply()
    publishing.clock.advance(10 * WATCHDOG_TIMEOUT)
    assert not publishing.watchdog.expired


def test_publisher_is_not_stuck_while_redis_is_unavailable_or_refuses(
    publishing: Publishing,
) -> None:
    publishing.redis.lose()
    publishing.publish("a")
    publishing.run_turn()
    publishing.last.cancel()  # the device disconnects, and another one connects
    publishing.clock.advance(WATCHDOG_TIMEOUT)
    publishing.publish("b")
    publishing.clock.advance(WATCHDOG_TIMEOUT + 1)
    assert not publishing.watchdog.expired
    publishing.redis.reconnect()
    for _ in range(int(2 * WATCHDOG_TIMEOUT / RETRY_DELAY)):
        publishing.redis.commands.pop()[1].errback(Refused("OOM command not allowed"))
        publishing.clock.advance(RETRY_DELAY)
    assert not publishing.watchdog.expired


# Whether the log confirms.


def test_log_confirms_while_nothing_is_overdue(publishing: Publishing) -> None:
    assert publishing.publisher.confirms
    publishing.publish("a")
    publishing.run_turn()
    publishing.clock.advance(CONFIRM_TIMEOUT - 0.01)
    assert publishing.publisher.confirms
    publishing.reply()
    publishing.clock.advance(60)
    assert publishing.publisher.confirms


def test_log_does_not_confirm_while_a_call_is_overdue(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.clock.advance(1)
    publishing.publish("b")
    publishing.run_turn()
    publishing.clock.advance(CONFIRM_TIMEOUT - 1)
    assert not publishing.publisher.confirms
    publishing.reply()
    assert publishing.publisher.confirms


def test_log_does_not_confirm_while_a_waiting_frame_is_overdue(publishing: Publishing) -> None:
    for number in range(MAX_IN_FLIGHT + 1):
        publishing.publish(str(number), MAX_RECORDS)
    publishing.run_turn()
    publishing.clock.advance(CONFIRM_TIMEOUT)
    while publishing.redis.commands:
        assert not publishing.publisher.confirms
        publishing.reply()
        publishing.run_turn()
    assert publishing.publisher.confirms


def test_log_does_not_confirm_while_redis_refuses_appends(publishing: Publishing) -> None:
    publishing.publish("a")
    publishing.run_turn()
    publishing.redis.commands.pop()[1].errback(Refused("OOM command not allowed"))
    assert not publishing.publisher.confirms
    publishing.clock.advance(RETRY_DELAY)
    publishing.reply()
    assert publishing.publisher.confirms


def test_log_does_not_confirm_while_redis_is_down(publishing: Publishing) -> None:
    publishing.redis.lose()
    assert not publishing.publisher.confirms
    publishing.redis.reconnect()
    assert publishing.publisher.confirms


def test_stopping_publisher_does_not_count_as_confirming(publishing: Publishing) -> None:
    publishing.publisher.stopService()
    assert not publishing.publisher.confirms
