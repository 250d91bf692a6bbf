"""Commands on the connection that all vendors share, and what it shows of itself."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.lines import DEVICE, LOGIN, SETTLES, LineTalk, ask, logged_in, published
from tracker.command import CommandFrame
from tracker.interfaces import (
    ConnectionEnded,
    ConnectionFigures,
    NotAppended,
    Traffic,
)
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY

# Commands.


def test_a_command_is_made_for_the_device(online: LineTalk) -> None:
    expected = CommandFrame("lines", f"reset {DEVICE}\n".encode())
    assert online.protocol.command_frame("reset", "") == expected


def test_a_command_is_written_when_the_login_has_settled(online: LineTalk) -> None:
    came = ask(online)
    online.clock.advance(SETTLES - 0.01)
    assert came == []
    online.clock.advance(0.02)
    assert came == ["turn"]
    assert online.answer() == b"command\n"


def test_records_show_that_the_login_has_settled(online: LineTalk) -> None:
    came = ask(online)
    online.send(b"records A\n")
    assert came == []
    online.confirm()
    assert online.answer() == b"1\ncommand\n"


def test_no_command_is_written_while_too_many_messages_are_under_way(online: LineTalk) -> None:
    online.clock.advance(SETTLES)
    online.send(b"note A\n" * MAX_MESSAGES_UNDER_WAY)
    came = ask(online)
    assert came == []
    online.confirm()
    assert came == ["turn"]


@pytest.mark.parametrize("busy", [b"records A\n", b"rec", b"note A\nbeat\n"])
def test_a_command_comes_between_nothing(online: LineTalk, busy: bytes) -> None:
    online.clock.advance(SETTLES)
    online.send(busy)
    came = ask(online)
    online.clock.advance(10)
    assert came == []
    if busy == b"rec":
        online.send(b"ords A\n")
    online.confirm()
    assert came == ["turn"]
    assert online.answer().endswith(b"\ncommand\n")


def test_no_command_is_written_to_a_radio_that_sleeps(online: LineTalk) -> None:
    online.clock.advance(30)
    came = ask(online, radio_sleeps=30)
    assert came == []
    online.send(b".\n")
    assert came == ["turn"]


@pytest.mark.parametrize("last", [b"", b"beat\n"])
def test_no_command_is_written_to_a_connection_that_retires(online: LineTalk, last: bytes) -> None:
    online.clock.advance(SETTLES)
    online.send(b"records A\n")
    came = ask(online)
    online.send(last[:2])
    online.protocol.retire()
    online.confirm()
    online.send(last[2:])
    assert came == [ConnectionEnded]
    assert b"command" not in online.answer()
    assert online.closed


@pytest.mark.parametrize("end", ["close", "lose"])
def test_who_waits_to_write_learns_of_the_end(online: LineTalk, end: str) -> None:
    came = ask(online)
    getattr(online.protocol if end == "close" else online, end)()
    assert came == [ConnectionEnded]
    assert ask(online) == [ConnectionEnded]
    assert online.timers == 0


# Looking at it.


def test_an_observer_is_shown_frames_and_answers(online: LineTalk) -> None:
    shown: list[tuple[Traffic, bytes]] = []
    online.protocol.observe(lambda *what: shown.append(what))
    online.send(b".\nrecords A\n")
    online.confirm()
    online.send(b"pardon\nno")
    online.protocol.observe(None)
    online.send(b"te A\n")
    assert shown == [(Traffic.RECEIVED, b"records A\n"), (Traffic.SENT, b"1\n")]


def test_the_facts_are_those_of_the_device(online: LineTalk) -> None:
    online.clock.advance(5)
    online.send(b"records A B\nnote C\n")
    size = len(LOGIN) + len(b"records A B\nnote C\n")
    assert online.protocol.figures() == ConnectionFigures(0.0, 5.0, "lines", 2, size)
    assert online.gateway.tally.bytes_received == size


class Hasty(FakeGateway):
    """Fails at once, as the gateway of a process that stops does."""

    def publish(self, entries: Any) -> Deferred[None]:
        failed = super().publish(entries)
        failed.errback(NotAppended("stopping"))
        return failed


def test_a_gateway_that_accepts_nothing_ends_the_connection() -> None:
    talk = logged_in(gateway=Hasty())
    talk.send(b"records A\nrecords B\n")
    assert talk.closed
    assert published(talk) == ["A"]
    assert talk.answer() == b""


def test_no_step_follows_the_one_that_ends_the_connection() -> None:
    talk = logged_in(gateway=Hasty())
    talk.gateway.accepts_detached = False
    talk.send(b"answer A\n")
    assert talk.closed
    assert talk.told("lost") == [("lost", 1)]
    assert talk.told("answered") == []
