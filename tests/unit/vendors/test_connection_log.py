"""Logins and replies that depend on whether the log confirms."""

from __future__ import annotations

import pytest

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.lines import (
    DEVICE,
    SETTLE_TIME,
    LineTalk,
    logged_in,
    published,
    request_slot,
)
from tracker.interfaces import Admission, NotAppended
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY

#: A burst of two messages, then one message per second.
SLOW = Limits(message_rate=1, message_burst=2)

ENTER = f"enter {DEVICE}\n".encode()

# Logins that need the log.


@pytest.fixture
def withheld(talk: LineTalk) -> LineTalk:
    """Return a connection whose login is withheld."""
    talk.gateway.log_confirms = False
    talk.send(ENTER)
    assert talk.received() == b""
    return talk


def confirm(talk: LineTalk) -> None:
    """Let the log confirm again."""
    talk.gateway.log_confirms = True
    for waiter in talk.gateway.waiting[:]:
        waiter.callback(None)


def test_login_that_needs_the_log_is_accepted_while_it_confirms(talk: LineTalk) -> None:
    talk.send(ENTER)
    assert talk.received() == b"welcome\n"


def test_login_is_accepted_as_soon_as_the_log_confirms(withheld: LineTalk) -> None:
    withheld.clock.advance(withheld.limits.login_timeout * 2)
    assert withheld.received() == b""
    assert not withheld.closed
    confirm(withheld)
    assert withheld.received() == b"welcome\n"
    assert withheld.events_of("login") == [("login", DEVICE)]
    assert withheld.gateway.kinds == []


def test_repeated_login_is_withheld_too_and_then_accepted(withheld: LineTalk) -> None:
    withheld.send(ENTER * 2)
    assert withheld.received() == b""
    confirm(withheld)
    withheld.clock.advance(0)
    withheld.clock.advance(0)
    assert withheld.received() == b"welcome\n" * 3
    assert withheld.events_of("login") == [("login", DEVICE)]
    withheld.gateway.log_confirms = False
    withheld.send(ENTER)
    assert withheld.received() == b""


def test_frames_behind_a_withheld_login_wait_for_it(withheld: LineTalk) -> None:
    withheld.send(b"note A\nrecords B\ntime\n")
    assert published(withheld) == []
    confirm(withheld)
    assert withheld.received() == b"welcome\n"
    assert published(withheld) == ["A", "B"]


def test_no_command_is_written_before_a_withheld_login_has_settled(withheld: LineTalk) -> None:
    results = request_slot(withheld)
    withheld.clock.advance(60)
    assert results == []
    confirm(withheld)
    withheld.clock.advance(SETTLE_TIME - 0.1)
    assert results == []
    withheld.clock.advance(0.2)
    assert withheld.received() == b"welcome\ncommand\n"


@pytest.mark.parametrize("end", ["close", "lose"])
def test_withheld_login_ends_with_its_connection(withheld: LineTalk, end: str) -> None:
    if end == "close":
        withheld.protocol.close()
    else:
        withheld.lose()
    assert withheld.gateway.waiting == []
    assert withheld.received() == b""
    assert withheld.events_of("closed") == [("closed",)]
    assert withheld.timers == 0


def test_refused_device_is_not_kept_waiting_for_the_log(talk: LineTalk) -> None:
    talk.gateway.log_confirms = False
    talk.gateway.admissions[DEVICE] = Admission.REFUSED
    talk.send(ENTER)
    assert talk.received() == b"no\n"
    assert talk.closed
    assert talk.gateway.waiting == []


# Detached positions.


def test_detached_positions_are_not_limited_in_their_rate() -> None:
    talk = logged_in(SLOW)
    for number in range(20):
        talk.send(b"place %d\n" % number)
        talk.confirm()
    assert published(talk) == [str(number) for number in range(20)]
    assert talk.gateway.tally.paused_for_messages == 0
    assert talk.protocol.figures().records == 20


def test_number_of_detached_positions_under_way_is_limited(online: LineTalk) -> None:
    online.send(b"place A\n" * (MAX_MESSAGES_UNDER_WAY + 2))
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY
    online.gateway.published[0][1].callback(None)
    assert len(online.gateway.published) == MAX_MESSAGES_UNDER_WAY + 1


def test_detached_position_ends_the_settle_time(online: LineTalk) -> None:
    results = request_slot(online)
    online.send(b"place A\n")
    assert results == ["written"]


def test_detached_position_may_name_its_device(talk: LineTalk) -> None:
    talk.send(b"visit device-1 A\nvisit device-1 B\n")
    assert published(talk) == ["A", "B"]
    assert talk.protocol.device_id == DEVICE


@pytest.mark.parametrize("end", ["close", "lose"])
def test_unread_detached_positions_outlive_their_connection(end: str) -> None:
    talk = logged_in(SLOW)
    talk.gateway.published.clear()
    talk.send(b"records A\n" + b"place B\nnote C\nrecords D\n" * 10 + b"plac")
    if end == "close":
        talk.protocol.close()
    else:
        talk.lose()
    talk.clock.pump([0] * 5)
    # Messages have a budget of two, and as many in debt. Positions have none.
    assert (published(talk).count("B"), published(talk).count("C")) == (10, 4)
    assert sum(event[1] for event in talk.events_of("lost")) == 6
    assert "D" not in published(talk)
    assert talk.timers == 0


# Memory for kept entries.


def used_up(talk: LineTalk) -> LineTalk:
    """Use up the memory for entries."""
    talk.gateway.kept.begin(talk.gateway.kept.limit)
    return talk


def free(talk: LineTalk) -> None:
    """Let entries use memory again."""
    talk.gateway.kept.end(talk.gateway.kept.limit)


@pytest.mark.parametrize("line", [b"place A\n", b"note A\n", b"alarm A\n"])
def test_detached_frame_waits_while_the_memory_is_used_up(online: LineTalk, line: bytes) -> None:
    used_up(online).send(line + b"records B\n")
    online.clock.advance(online.limits.idle_timeout * 2)
    assert published(online) == []
    assert not online.closed
    assert online.gateway.tally.paused_for_memory == 1
    free(online)
    assert published(online) == ["A", "B"]


def test_records_are_appended_while_the_memory_is_used_up(online: LineTalk) -> None:
    used_up(online).send(b"records A\ntime\n")
    online.confirm()
    online.clock.advance(0)
    assert online.received() == b"1\ntime\n"


def test_connection_is_not_read_while_the_memory_is_used_up() -> None:
    talk = used_up(logged_in(Limits(buffer_bytes=64)))
    talk.send(b"place A\n" * 8)
    assert talk.transport.producerState == "producing"
    talk.send(b"place A\n")
    assert talk.transport.producerState == "paused"
    free(talk)
    assert talk.transport.producerState == "producing"
    assert len(published(talk)) == 9


def test_device_whose_first_frame_is_a_position_is_not_read_at_all(talk: LineTalk) -> None:
    used_up(talk).send(b"visit device-1 A\n")
    assert talk.transport.producerState == "paused"
    assert talk.protocol.device_id is None
    talk.clock.advance(talk.limits.login_timeout * 2)
    assert not talk.closed
    free(talk)
    assert published(talk) == ["A"]
    assert talk.transport.producerState == "producing"


def test_held_positions_of_an_unknown_device_are_counted_when_they_are_lost(
    talk: LineTalk,
) -> None:
    used_up(talk).send(b"visit device-1 A\nvisit device-1 B\n")
    talk.protocol.close()
    assert talk.events_of("lost") == [("lost", 2)]
    free(talk)
    assert published(talk) == []
    assert talk.timers == 0


@pytest.mark.parametrize("end", ["close", "lose"])
def test_held_positions_outlive_their_connection(online: LineTalk, end: str) -> None:
    online.send(b"place A\n")
    used_up(online).send(b"place B\nplace C\n" * 10)
    if end == "close":
        online.protocol.close()
    else:
        online.lose()
    online.clock.advance(600)
    assert published(online) == ["A"]
    assert online.timers == 0
    assert online.gateway.kept.unread == 20 * len(b"place B\n")
    free(online)
    online.clock.pump([0] * 5)
    assert published(online) == ["A", *"BC" * 10]
    assert online.gateway.kept.unread == 0
    assert online.timers == 0


def test_held_connection_that_ends_is_not_resumed(online: LineTalk) -> None:
    used_up(online).send(b"note A\n")
    online.lose()
    free(online)
    online.clock.advance(0)
    assert online.gateway.kept._waiting == {}
    assert online.timers == 0
    assert published(online) == ["A"]


def test_unread_messages_of_ended_connections_use_a_part_of_the_memory() -> None:
    gateway = FakeGateway()
    gateway.kept = KeptMemory(1600)
    for word, lost in ((b"note", [("lost", 15)]), (b"place", [])):
        talk = logged_in(gateway=gateway)
        talk.send(word + b" A\n")
        used_up(talk)
        gateway.events.clear()
        talk.send((word + b" B\n") * 15)
        talk.lose()
        assert talk.events_of("lost") == lost
        free(talk)


def test_idle_timeout_does_not_run_while_frames_may_be_unread_in_the_transport() -> None:
    talk = logged_in(Limits(buffer_bytes=64, idle_timeout=100))
    talk.send(b"place A\n" * MAX_MESSAGES_UNDER_WAY)
    talk.send(b"place B\n" * 10)
    assert talk.transport.producerState == "paused"
    talk.clock.pump([60] * 10)
    assert not talk.closed
    for _, appended in talk.gateway.published[:MAX_MESSAGES_UNDER_WAY]:
        appended.callback(None)
    assert published(talk)[-1] == "B"
    talk.clock.pump([60] * 3)
    assert talk.closed


# Fences.


@pytest.mark.parametrize("busy", [b"place A\n", b"note A\n", b"place A\nnote B\nalarm C\n"])
def test_fence_leaves_only_when_all_earlier_entries_are_durable(
    online: LineTalk, busy: bytes
) -> None:
    online.send(busy + b"beat\nrecords D\nbeat\n")
    pending = [appended for _, appended in online.gateway.published]
    assert len(pending) == busy.count(b"\n")
    for appended in pending:
        online.clock.advance(1)
        assert b"beat" not in online.received()
        appended.callback(None)
    assert online.received().endswith(b"beat\n")
    assert published(online)[-1] == "D"
    online.confirm()
    online.clock.advance(0)
    assert online.received() == b"1\nbeat\n"


def test_frames_behind_a_fence_are_held_and_their_bytes_bounded() -> None:
    talk = logged_in(Limits(buffer_bytes=64))
    talk.send(b"place A\nbeat\n")
    talk.send(b"place B\n" * 9)
    assert published(talk) == ["A"]
    assert talk.transport.producerState == "paused"
    talk.confirm()
    assert talk.received() == b"beat\n"
    assert len(published(talk)) == 10


def test_fence_waits_for_positions_that_wait_for_memory(online: LineTalk) -> None:
    used_up(online).send(b"place A\nbeat\n")
    assert online.received() == b""
    free(online)
    assert online.received() == b""
    online.confirm()
    assert online.received() == b"beat\n"


@pytest.mark.parametrize("first", [0, 1])
def test_fence_is_not_written_after_any_earlier_entry_was_given_up(
    online: LineTalk, first: int
) -> None:
    online.send(b"place A\nplace B\nbeat\n")
    results = [appended for _, appended in online.gateway.published]
    results[first].errback(NotAppended("stopping"))
    results[1 - first].callback(None)
    assert online.received() == b""
    assert online.closed
