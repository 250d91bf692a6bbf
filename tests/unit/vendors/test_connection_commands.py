"""Commands, observers and figures of the connection that all vendors share."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.lines import (
    DEVICE,
    LOGIN,
    SETTLE_TIME,
    LineTalk,
    logged_in,
    published,
    request_slot,
)
from tracker.command import CommandFrame
from tracker.interfaces import (
    ConnectionEnded,
    ConnectionFigures,
    NotAppended,
    Traffic,
)
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY

# Commands.


def test_command_is_encoded_for_the_device(online: LineTalk) -> None:
    expected = CommandFrame("lines", f"reset {DEVICE}\n".encode())
    assert online.protocol.command_frame(DEVICE, b"reset", "") == expected


def test_command_is_written_after_the_settle_time(online: LineTalk) -> None:
    results = request_slot(online)
    online.clock.advance(SETTLE_TIME - 0.01)
    assert results == []
    online.clock.advance(0.02)
    assert results == ["written"]
    assert online.received() == b"command\n"


def test_records_end_the_settle_time(online: LineTalk) -> None:
    results = request_slot(online)
    online.send(b"records A\n")
    assert results == []
    online.confirm()
    assert online.received() == b"1\ncommand\n"


def test_no_command_is_written_while_too_many_messages_are_under_way(online: LineTalk) -> None:
    online.clock.advance(SETTLE_TIME)
    online.send(b"note A\n" * MAX_MESSAGES_UNDER_WAY)
    results = request_slot(online)
    assert results == []
    online.confirm()
    assert results == ["written"]


@pytest.mark.parametrize("busy", [b"records A\n", b"rec", b"note A\nbeat\n"])
def test_command_waits_for_a_frame_under_way(online: LineTalk, busy: bytes) -> None:
    online.clock.advance(SETTLE_TIME)
    online.send(busy)
    results = request_slot(online)
    online.clock.advance(10)
    assert results == []
    if busy == b"rec":
        online.send(b"ords A\n")
    online.confirm()
    assert results == ["written"]
    assert online.received().endswith(b"\ncommand\n")


def test_no_command_is_written_to_a_silent_device(online: LineTalk) -> None:
    online.clock.advance(30)
    results = request_slot(online, silence_limit=30)
    assert results == []
    online.send(b".\n")
    assert results == ["written"]


@pytest.mark.parametrize("last", [b"", b"beat\n"])
def test_no_command_is_written_to_a_connection_that_retires(online: LineTalk, last: bytes) -> None:
    online.clock.advance(SETTLE_TIME)
    online.send(b"records A\n")
    results = request_slot(online)
    online.send(last[:2])
    online.protocol.retire()
    online.confirm()
    online.send(last[2:])
    assert results == [ConnectionEnded]
    assert b"command" not in online.received()
    assert online.closed


@pytest.mark.parametrize("end", ["close", "lose"])
def test_request_to_write_a_command_fails_when_the_connection_ends(
    online: LineTalk, end: str
) -> None:
    results = request_slot(online)
    getattr(online.protocol if end == "close" else online, end)()
    assert results == [ConnectionEnded]
    assert request_slot(online) == [ConnectionEnded]
    assert online.timers == 0


# Observers and figures.


def test_observer_does_not_receive_the_secrets_of_a_command(online: LineTalk) -> None:
    events: list[tuple[Traffic, bytes]] = []
    online.protocol.observe(lambda *what: events.append(what))
    online.protocol.write_command(b"secret\n", b"***\n")
    assert events == [(Traffic.SENT, b"***\n")]
    assert online.received() == b"secret\n"


def test_observer_receives_frames_and_replies(online: LineTalk) -> None:
    events: list[tuple[Traffic, bytes]] = []
    online.protocol.observe(lambda *what: events.append(what))
    online.send(b".\nrecords A\n")
    online.confirm()
    online.send(b"pardon\nno")
    online.protocol.observe(None)
    online.send(b"te A\n")
    assert events == [(Traffic.RECEIVED, b"records A\n"), (Traffic.SENT, b"1\n")]


def test_figures_include_records_bytes_and_time_of_the_last_frame(online: LineTalk) -> None:
    online.clock.advance(5)
    online.send(b"records A B\nnote C\n")
    size = len(LOGIN) + len(b"records A B\nnote C\n")
    assert online.protocol.figures() == ConnectionFigures(0.0, 5.0, "lines", 2, size)
    assert online.gateway.tally.bytes_received == size


class StoppingGateway(FakeGateway):
    """Fails at once, like the gateway of a process that stops."""

    def publish(self, entries: Any) -> Deferred[None]:
        failed = super().publish(entries)
        failed.errback(NotAppended("stopping"))
        return failed


def test_gateway_that_appends_nothing_closes_the_connection() -> None:
    talk = logged_in(gateway=StoppingGateway())
    talk.send(b"records A\nrecords B\n")
    assert talk.closed
    assert published(talk) == ["A"]
    assert talk.received() == b""


def test_frame_is_not_processed_further_after_it_closes_the_connection() -> None:
    talk = logged_in(gateway=StoppingGateway())
    talk.gateway.accepts_detached = False
    talk.send(b"answer A\n")
    assert talk.closed
    assert talk.events_of("lost") == [("lost", 1)]
    assert talk.events_of("answered") == []
