"""Listening on a control port: at the start, and after the socket was removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.control.wire import log_lines
from tracker.control.listening import CHECK_INTERVAL, ControlListener, NoPlace, Place

BUSY = CannotListenError(None, "/s", "another process listens on this socket")


@implementer(IListeningPort)
class ListeningPort:
    def startListening(self) -> None:
        """See IListeningPort."""

    def stopListening(self) -> None:
        """See IListeningPort."""

    def getHost(self) -> UNIXAddress:
        """See IListeningPort."""
        return UNIXAddress(b"/s")


@implementer(IStreamServerEndpoint)
@define
class Endpoint:
    """An endpoint that fails with ``error``, if any, and opens at once unless it is slow."""

    error: Exception | None = None
    slow: Deferred[Any] | None = None
    listened: int = 0

    def listen(self, factory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamServerEndpoint."""
        if self.error is not None:
            return fail(self.error)
        self.listened += 1
        return self.slow or succeed(ListeningPort())


@define
class Bench:
    clock: Clock = field(factory=Clock)
    endpoint: Endpoint = field(factory=Endpoint)
    reason: str = ""
    aborted: list[str] = field(factory=list)

    def place(self) -> Place:
        if self.reason:
            raise NoPlace(self.reason)
        return Place("--control unix:/s", "unix:/s", self.endpoint)

    def listener(self, abort: Callable[[str], None] | None = None) -> ControlListener:
        return ControlListener(self.clock, Factory(), self.place, abort)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_doubles_provide_their_interfaces() -> None:
    verifyObject(IListeningPort, ListeningPort())
    verifyObject(IStreamServerEndpoint, Endpoint())


def test_address_is_known_while_the_port_is_open(bench: Bench) -> None:
    listener = bench.listener()
    assert listener.address is None
    listener.startService()
    assert listener.address == "unix:/s"
    bench.clock.advance(10 * CHECK_INTERVAL)
    assert bench.endpoint.listened == 1
    listener.stopService()
    assert listener.address is None
    assert not bench.clock.getDelayedCalls()


def test_requested_port_that_cannot_be_opened_ends_the_process(bench: Bench) -> None:
    bench.endpoint.error = BUSY
    listener = bench.listener(bench.aborted.append)
    listener.startService()
    assert bench.aborted == [f"cannot listen on --control unix:/s: {BUSY.socketError}"]
    listener.stopService()


def test_missing_default_port_is_logged_once_and_retried(bench: Bench) -> None:
    bench.endpoint.error = BUSY
    listener = bench.listener()
    with capturedLogs() as logged:
        listener.startService()
        bench.clock.pump([CHECK_INTERVAL] * 3)
        bench.reason = "no folder"
        bench.clock.pump([CHECK_INTERVAL] * 3)
    assert listener.address is None
    first, second = log_lines(logged, LogLevel.warn)
    assert str(BUSY.socketError) in first
    assert "no folder" in second
    bench.reason, bench.endpoint.error = "", None
    bench.clock.advance(CHECK_INTERVAL)
    assert listener.address == "unix:/s"
    listener.stopService()


def test_stop_while_the_port_is_being_opened_leaves_it_closed(bench: Bench) -> None:
    bench.endpoint.slow = Deferred()
    listener = bench.listener(bench.aborted.append)
    listener.startService()
    stopped = listener.stopService()
    assert stopped.called
    assert listener.address is None
    assert bench.aborted == []
