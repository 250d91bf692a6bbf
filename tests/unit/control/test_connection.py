"""How a client connects, comes back when the connection is lost, and stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import LogEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tests.unit.control.reached import Bench, Endpoint, Near, refusal
from tests.unit.control.wire import DEVICE, OTHER, Port, quiet, slow
from tracker.control import connection as module
from tracker.control.client import ControlClient
from tracker.control.commands import (
    CODES,
    BadArgument,
    ControlError,
    NoSuchDevice,
    VersionMismatch,
)
from tracker.control.connection import (
    GREETING_TIMEOUT,
    MAX_RETRY_DELAY,
    MIN_RETRY_DELAY,
    NotConnected,
)
from tracker.control.handler import MAX_WATCHED
from tracker.control.watching import DeviceEvent, Watches
from tracker.interfaces import Traffic

# Connecting.


def test_without_a_start_nothing_is_asked() -> None:
    port = Port()
    client = ControlClient(port.clock, Endpoint(port.clock, port))
    results: list[Any] = []
    Deferred.fromCoroutine(client.info()).addErrback(lambda f: results.append(f.value))
    assert str(results[0]) == "not started"


def test_it_tries_again_less_and_less_often() -> None:
    bench = Bench()
    step = MIN_RETRY_DELAY
    for _ in range(8):
        bench.endpoint.fail(refusal())
        before = bench.clock.seconds()
        while not bench.endpoint.attempts:
            bench.clock.advance(0.01)
        assert step / 2 <= bench.clock.seconds() - before <= step + 0.02
        step = min(2 * step, MAX_RETRY_DELAY)
    assert step == MAX_RETRY_DELAY
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())
    bench.endpoint.lose()
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())
    assert bench.stop() == [None]
    assert bench.port.timers == 0


def test_who_asks_meanwhile_is_told_why_in_the_end() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    while bench.clock.seconds() < GREETING_TIMEOUT:
        assert not asked
        if bench.endpoint.attempts:
            bench.endpoint.fail(refusal())
        bench.clock.advance(0.5)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "Connection refused"


def test_an_attempt_that_takes_too_long_is_told() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    bench.clock.advance(GREETING_TIMEOUT)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "no connection within 10 s"


def test_without_retries_one_failure_is_the_end() -> None:
    bench = Bench(retry=False)
    asked = bench.begin(bench.client.info())
    bench.endpoint.fail(refusal())
    assert str(asked[0]) == "Connection refused"
    assert str(bench.ask(bench.client.info())) == "Connection refused"
    assert not bench.endpoint.attempts
    assert bench.port.timers == 0
    assert bench.stop() == [None]


def test_without_retries_a_connection_that_is_lost_stays_lost() -> None:
    bench = Bench(retry=False)
    bench.endpoint.succeed()
    slow(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.endpoint.lose()
    assert isinstance(asked[0], NotConnected)
    error = bench.ask(bench.client.info())
    assert isinstance(error, NotConnected)
    assert not bench.endpoint.attempts
    assert bench.port.timers == 0


@pytest.mark.parametrize("retry", [False, True])
def test_another_version_is_told_at_once(retry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERSION", 2)
    bench = Bench(retry)
    asked = bench.begin(bench.client.info())
    bench.endpoint.succeed()
    (error,) = asked
    assert isinstance(error, VersionMismatch)
    assert "and not 2: upgrade this instance" in str(error)
    # The connection is not left behind.
    assert bench.endpoint.far is not None
    assert bench.endpoint.far.disconnected
    assert bench.stop() == [None]
    assert bench.port.timers == 0


def test_it_is_told_when_it_is_cut_off_before_it_is_greeted(
    logged: Sequence[LogEvent],
) -> None:
    bench = Bench(retry=False)
    bench.port.factory.permissions.local = None  # type: ignore[assignment]
    asked = bench.begin(bench.client.info())
    bench.endpoint.succeed()
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert quiet(logged)
    assert bench.port.timers == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            SSL.Error([("SSL routines", "", "certificate verify failed")]),
            "TLS: certificate verify failed",
        ),
        (VerificationError(errors=[]), "TLS: the server's certificate is for another name"),
        (ConnectionDone(), "the instance has closed the connection"),
        (ConnectionLost(), "the connection was cut off: the instance tells why in its log"),
        (refusal(), "Connection refused"),
        (FileNotFoundError(2, "No such file"), "[Errno 2] No such file"),
        (SSL.Error(), "Error"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_reason_is_one_line_for_people(error: Exception, told: str) -> None:
    bench = Bench(retry=False)
    asked = bench.begin(bench.client.info())
    bench.endpoint.fail(error)
    assert str(asked[0]).startswith(told)


# TLS.


class Secure(Near):
    """The client's end of a connection over TLS, whose handshake the test carries out."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        alsoProvides(self, ISSLTransport)


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("tests.unit.control.reached.Near", Secure)
    return Bench(retry=False)


def client_end(bench: Bench) -> Any:
    assert bench.endpoint.pump is not None
    return bench.endpoint.pump.client


def test_nothing_is_sent_before_the_server_has_proved_who_it_is(secure: Bench) -> None:
    asked = secure.begin(secure.client.info())
    secure.endpoint.succeed()
    assert client_end(secure).transport.getOutBuffer() is None
    client_end(secure).handshakeCompleted()
    secure.flush()
    assert asked[0]["instance_id"] == "one"


def test_handshake_has_a_deadline(secure: Bench) -> None:
    secure.endpoint.succeed()
    asked = secure.begin(secure.client.info())
    secure.clock.advance(GREETING_TIMEOUT)
    secure.flush()
    assert str(asked[0]) == f"no TLS within {GREETING_TIMEOUT:g} s"
    assert secure.endpoint.far is not None
    assert secure.endpoint.far.disconnected


def test_connection_that_is_lost_during_the_handshake_is_told_with_the_reason(
    secure: Bench,
) -> None:
    secure.endpoint.succeed()
    asked = secure.begin(secure.client.info())
    client_end(secure).connectionLost(Failure(SSL.Error([("", "", "unknown ca")])))
    assert str(asked[0]) == "TLS: unknown ca"


# Coming back.


def happened(bench: Bench, device_id: str = DEVICE) -> None:
    bench.port.instance.happened(device_id, Traffic.SENT, b"\x01")
    bench.flush()


def test_what_is_watched_is_watched_on_over_reconnections(bench: Bench) -> None:
    events: list[DeviceEvent] = []
    assert bench.ask(bench.client.watch(DEVICE, events.append)) is False
    happened(bench)
    assert events == [DeviceEvent(DEVICE, 0.0, "sent", b"\x01", '{"kind": "frame"}', False, 0)]
    bench.endpoint.lose()
    assert not bench.port.instance.watched
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    happened(bench)
    assert len(events) == 2
    assert bench.ask(bench.client.unwatch(DEVICE)) is None
    happened(bench)
    assert len(events) == 2
    bench.endpoint.lose()
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert not bench.port.instance.watched


def test_what_is_not_watched_any_more_by_the_next_connection_is_not(bench: Bench) -> None:
    bench.ask(bench.client.watch(DEVICE, lambda event: None))
    bench.endpoint.lose()
    assert bench.ask(bench.client.unwatch(DEVICE)) is None
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert not bench.port.instance.watched
    assert isinstance(bench.ask(bench.client.unwatch(DEVICE)), NoSuchDevice)


def test_a_device_that_could_not_be_watched_does_not_keep_it_from_coming_back(
    bench: Bench,
) -> None:
    for number in range(MAX_WATCHED):
        bench.ask(bench.client.watch(str(number), lambda event: None))
    error = bench.ask(bench.client.watch(DEVICE, lambda event: None))
    assert isinstance(error, BadArgument)
    bench.endpoint.lose()
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())["watchers"] == 1
    assert len(bench.port.instance.watched) == MAX_WATCHED


def test_a_watcher_may_be_replaced_by_another(bench: Bench) -> None:
    first: list[DeviceEvent] = []
    second: list[DeviceEvent] = []
    bench.ask(bench.client.watch(DEVICE, first.append))
    bench.ask(bench.client.watch(DEVICE, second.append))
    happened(bench)
    assert (len(first), len(second)) == (0, 1)


def test_a_watcher_that_fails_harms_nobody(bench: Bench, logged: Sequence[LogEvent]) -> None:
    def fails(event: DeviceEvent) -> None:
        raise RuntimeError("a fault")

    events: list[DeviceEvent] = []
    bench.ask(bench.client.watch(DEVICE, fails))
    bench.ask(bench.client.watch(OTHER, events.append))
    happened(bench)
    happened(bench, OTHER)
    assert len(events) == 1
    assert bench.ask(bench.client.info())
    assert len([event for event in logged if "log_failure" in event]) == 1


def test_what_was_under_way_fails_and_is_not_asked_again(bench: Bench) -> None:
    slow(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.endpoint.lose()
    (error,) = asked
    assert isinstance(error, NotConnected)
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert sum(command[0] == "HMGET" for command in bench.port.redis.asked) == 1


# Stopping.


def test_a_stop_disconnects(bench: Bench) -> None:
    slow(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    assert bench.stop() == [None]
    assert isinstance(asked[0], NotConnected)
    assert bench.port.factory.watchers == 0
    assert bench.port.timers == 0
    assert isinstance(bench.ask(bench.client.info()), NotConnected)
    assert not bench.endpoint.attempts


def test_a_stop_gives_an_attempt_up() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    assert bench.stop() == [None]
    assert bench.endpoint.cancelled == 1
    assert str(asked[0]) == "stopped"
    assert bench.port.timers == 0


def test_a_stop_between_two_attempts_is_at_once() -> None:
    bench = Bench()
    bench.endpoint.fail(refusal())
    assert bench.stop() == [None]
    assert bench.port.timers == 0


def test_connection_that_cannot_be_cancelled_any_longer_is_closed() -> None:
    bench = Bench()
    bench.endpoint.cancelling = bench.endpoint.succeed
    assert bench.stop() == [None]
    assert bench.endpoint.far is not None
    assert bench.endpoint.far.disconnected
    assert bench.port.timers == 0


def test_it_may_be_started_again(bench: Bench) -> None:
    assert bench.stop() == [None]
    bench.client.startService()
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())


def test_a_failure_is_not_lost_on_the_way() -> None:
    """What the loop does not expect is told to whoever asks, too."""
    bench = Bench(retry=False)
    bench.endpoint.attempts.pop(0)[1].errback(Failure(MemoryError("too much")))
    assert str(bench.ask(bench.client.info())) == "too much"


@pytest.mark.parametrize(
    "facts",
    [{"at": math.nan}, {"at": math.inf}, {"at": -1.0}, {"at": 1e300}, {"raw": "zz"}],
    ids=repr,
)
def test_a_malformed_event_is_left_out(facts: dict[str, Any]) -> None:
    events: list[DeviceEvent] = []
    watches = Watches()
    watches.set(DEVICE, events.append)
    good = {"device_id": DEVICE, "at": 1.0, "kind": "sent", "raw": "01", "decoded": "{}"}
    about = {"truncated": False, "dropped": 0}
    for one in (facts, {"kind": "\x1b" * 1000}):
        watches.happened(**{**good, **about, **one})
    (event,) = events
    assert event.kind.isprintable()
    assert len(event.kind) < 100


def test_an_event_without_its_arguments_is_refused_and_not_logged(
    logged: Sequence[LogEvent],
) -> None:
    refused = Watches().locateResponder(b"Event")(amp.AmpBox(device_id=DEVICE.encode()))
    errors: list[Any] = []
    refused.addErrback(lambda failure: errors.append(failure.value))
    (error,) = errors
    assert isinstance(error, amp.RemoteAmpError)
    assert error.errorCode == CODES[BadArgument]
    assert not logged


def test_an_instance_that_repeats_a_page_for_ever_is_not_followed(bench: Bench) -> None:
    async def walk() -> None:
        async for _ in bench.client.device_registry():
            pass

    bench.port.redis.answers = {
        "HSCAN": [b"0", [b"1", b"one", b"2", b"one"]],
        "HMGET": lambda key, *asked: [b"x"] * len(asked),
    }

    async def same(*arguments: Any, **options: Any) -> dict[str, Any]:
        return {"devices": [{"device_id": "1"}], "more": True}

    bench.client._ask = same  # type: ignore[method-assign]
    asked = bench.begin(walk())
    bench.flush()
    assert isinstance(asked[0], ControlError)
