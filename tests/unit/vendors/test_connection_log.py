"""Logins and replies that depend on whether the log confirms."""

from __future__ import annotations

import pytest

from tests.unit.vendors.lines import DEVICE, SETTLE_TIME, LineTalk, published, request_slot
from tracker.interfaces import Admission

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
