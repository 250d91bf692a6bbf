"""Tests of the client's connection: connecting, reconnecting and stopping."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import LogEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tests.unit.control.client_bench import Bench, ClientTransport, Endpoint, refusal
from tests.unit.control.wire import DEVICE, OTHER, Port, delay_get_device, no_traceback
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
    reason_of,
    with_remedy,
)
from tracker.control.handler import MAX_WATCHED
from tracker.control.watching import DeviceEvent, Watches
from tracker.interfaces import Traffic

# Connecting.


def test_command_fails_before_the_client_is_started() -> None:
    port = Port()
    client = ControlClient(port.clock, Endpoint(port.clock, port))
    results: list[Any] = []
    Deferred.fromCoroutine(client.info()).addErrback(lambda f: results.append(f.value))
    assert str(results[0]) == "not started"


def test_delay_between_attempts_increases() -> None:
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


def test_command_fails_with_the_reason_of_the_last_attempt() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    while bench.clock.seconds() < GREETING_TIMEOUT:
        assert not asked
        if bench.endpoint.attempts:
            bench.endpoint.fail(refusal())
        bench.clock.advance(0.5)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "connection refused"


def test_command_fails_if_connecting_takes_too_long() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    bench.clock.advance(GREETING_TIMEOUT)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "not connected within 10s"


def test_client_without_retry_connects_only_once() -> None:
    bench = Bench(retry=False)
    asked = bench.begin(bench.client.info())
    bench.endpoint.fail(refusal())
    assert str(asked[0]) == "connection refused"
    assert str(bench.ask(bench.client.info())) == "connection refused"
    assert not bench.endpoint.attempts
    assert bench.port.timers == 0
    assert bench.stop() == [None]


def test_client_without_retry_does_not_reconnect() -> None:
    bench = Bench(retry=False)
    bench.endpoint.succeed()
    delay_get_device(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.endpoint.lose()
    assert isinstance(asked[0], NotConnected)
    error = bench.ask(bench.client.info())
    assert isinstance(error, NotConnected)
    assert not bench.endpoint.attempts
    assert bench.port.timers == 0


@pytest.mark.parametrize("retry", [False, True])
def test_version_mismatch_is_reported_at_once(retry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERSION", 2)
    bench = Bench(retry)
    asked = bench.begin(bench.client.info())
    bench.endpoint.succeed()
    (error,) = asked
    assert isinstance(error, VersionMismatch)
    assert "not 2; upgrade the instance" in str(error)
    assert bench.endpoint.far is not None
    assert bench.endpoint.far.disconnected
    assert bench.stop() == [None]
    assert bench.port.timers == 0


def test_connection_closed_before_hello_is_reported(
    logged: Sequence[LogEvent],
) -> None:
    bench = Bench(retry=False)
    bench.port.factory.permissions.local = None  # type: ignore[assignment]
    asked = bench.begin(bench.client.info())
    bench.endpoint.succeed()
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert no_traceback(logged)
    assert bench.port.timers == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            SSL.Error([("SSL routines", "", "certificate verify failed")]),
            "TLS: certificate verify failed",
        ),
        (VerificationError(errors=[]), "TLS: the server's certificate is for another name"),
        (ConnectionDone(), "connection closed by the instance"),
        (ConnectionLost(), "connection closed by the instance; see its log for the reason"),
        (refusal(), "connection refused"),
        (FileNotFoundError(2, "No such file"), "[Errno 2] No such file"),
        (SSL.Error(), "Error"),
        (ValueError(), "ValueError"),
    ],
)
def test_reason_of_a_failed_attempt_is_one_line(error: Exception, message: str) -> None:
    bench = Bench(retry=False)
    asked = bench.begin(bench.client.info())
    bench.endpoint.fail(error)
    assert str(asked[0]).startswith(message)


# TLS.


class Secure(ClientTransport):
    """The client's transport over TLS, whose handshake the test carries out."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        alsoProvides(self, ISSLTransport)


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("tests.unit.control.client_bench.ClientTransport", Secure)
    return Bench(retry=False)


def client_end(bench: Bench) -> Any:
    assert bench.endpoint.pump is not None
    return bench.endpoint.pump.client


def test_nothing_is_sent_before_the_server_is_authenticated(secure: Bench) -> None:
    asked = secure.begin(secure.client.info())
    secure.endpoint.succeed()
    assert client_end(secure).transport.getOutBuffer() is None
    client_end(secure).handshakeCompleted()
    secure.flush()
    assert asked[0]["instance_id"] == "one"


def test_tls_handshake_has_a_timeout(secure: Bench) -> None:
    secure.endpoint.succeed()
    asked = secure.begin(secure.client.info())
    secure.clock.advance(GREETING_TIMEOUT)
    secure.flush()
    assert str(asked[0]) == "TLS handshake not completed within 10s"
    assert secure.endpoint.far is not None
    assert secure.endpoint.far.disconnected


def test_connection_lost_during_the_handshake_is_reported_with_the_reason(
    secure: Bench,
) -> None:
    secure.endpoint.succeed()
    asked = secure.begin(secure.client.info())
    client_end(secure).connectionLost(Failure(SSL.Error([("", "", "unknown ca")])))
    assert str(asked[0]) == "TLS: unknown ca"


# Reconnecting.


def happened(bench: Bench, device_id: str = DEVICE) -> None:
    bench.port.instance.happened(device_id, Traffic.SENT, b"\x01")
    bench.flush()


def test_watched_devices_are_watched_again_after_a_reconnect(bench: Bench) -> None:
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


def test_device_unwatched_while_disconnected_is_not_watched_again(bench: Bench) -> None:
    bench.ask(bench.client.watch(DEVICE, lambda event: None))
    bench.endpoint.lose()
    assert bench.ask(bench.client.unwatch(DEVICE)) is None
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert not bench.port.instance.watched
    assert isinstance(bench.ask(bench.client.unwatch(DEVICE)), NoSuchDevice)


def test_refused_watch_does_not_prevent_a_reconnect(
    bench: Bench,
) -> None:
    for number in range(MAX_WATCHED):
        bench.ask(bench.client.watch(f"{number:015}", lambda event: None))
    error = bench.ask(bench.client.watch(DEVICE, lambda event: None))
    assert isinstance(error, BadArgument)
    bench.endpoint.lose()
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())["watchers"] == 1
    assert len(bench.port.instance.watched) == MAX_WATCHED


def test_second_watcher_of_a_device_replaces_the_first(bench: Bench) -> None:
    first: list[DeviceEvent] = []
    second: list[DeviceEvent] = []
    bench.ask(bench.client.watch(DEVICE, first.append))
    bench.ask(bench.client.watch(DEVICE, second.append))
    happened(bench)
    assert (len(first), len(second)) == (0, 1)


def test_failing_watcher_does_not_affect_others(bench: Bench, logged: Sequence[LogEvent]) -> None:
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


def test_command_in_progress_fails_when_the_connection_is_lost(bench: Bench) -> None:
    delay_get_device(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.endpoint.lose()
    (error,) = asked
    assert isinstance(error, NotConnected)
    bench.clock.advance(MIN_RETRY_DELAY)
    bench.endpoint.succeed()
    assert sum(command[0] == "HMGET" for command in bench.port.redis.sent) == 1


# Stopping.


def test_stop_closes_the_connection_and_fails_commands_in_progress(bench: Bench) -> None:
    delay_get_device(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    assert bench.stop() == [None]
    assert isinstance(asked[0], NotConnected)
    assert bench.port.factory.watchers == 0
    assert bench.port.timers == 0
    assert isinstance(bench.ask(bench.client.info()), NotConnected)
    assert not bench.endpoint.attempts


def test_stop_cancels_the_attempt_to_connect() -> None:
    bench = Bench()
    asked = bench.begin(bench.client.info())
    assert bench.stop() == [None]
    assert bench.endpoint.cancelled == 1
    assert str(asked[0]) == "stopped"
    assert bench.port.timers == 0


def test_stop_between_two_attempts_is_immediate() -> None:
    bench = Bench()
    bench.endpoint.fail(refusal())
    assert bench.stop() == [None]
    assert bench.port.timers == 0


def test_connection_made_during_a_stop_is_closed() -> None:
    bench = Bench()
    bench.endpoint.cancelling = bench.endpoint.succeed
    assert bench.stop() == [None]
    assert bench.endpoint.far is not None
    assert bench.endpoint.far.disconnected
    assert bench.port.timers == 0


def test_client_can_be_started_again(bench: Bench) -> None:
    assert bench.stop() == [None]
    bench.client.startService()
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())


def test_unexpected_error_is_reported_to_callers() -> None:
    """Report errors that the loop does not expect to callers."""
    bench = Bench(retry=False)
    bench.endpoint.attempts.pop(0)[1].errback(Failure(MemoryError("too much")))
    assert str(bench.ask(bench.client.info())) == "too much"


@pytest.mark.parametrize(
    "facts",
    [{"at": math.nan}, {"at": math.inf}, {"at": -1.0}, {"at": 1e300}, {"raw": "zz"}],
    ids=repr,
)
def test_malformed_event_is_dropped(facts: dict[str, Any]) -> None:
    events: list[DeviceEvent] = []
    watches = Watches()
    watches.set(DEVICE, events.append)
    good = {"device_id": DEVICE, "at": 1.0, "kind": "sent", "raw": "01", "decoded": "{}"}
    about = {"truncated": False, "dropped": 0}
    for one in (facts, {"kind": "\x1b" * 1000}):
        watches.event_received(**{**good, **about, **one})
    (event,) = events
    assert event.kind.isprintable()
    assert len(event.kind) < 100


def test_event_without_arguments_is_refused_without_logging(
    logged: Sequence[LogEvent],
) -> None:
    refused = Watches().locateResponder(b"Event")(amp.AmpBox(device_id=DEVICE.encode()))
    errors: list[Any] = []
    refused.addErrback(lambda failure: errors.append(failure.value))
    (error,) = errors
    assert isinstance(error, amp.RemoteAmpError)
    assert error.errorCode == CODES[BadArgument]
    assert not logged


def test_page_that_an_instance_repeats_raises_an_error(bench: Bench) -> None:
    async def walk() -> None:
        async for _ in bench.client.device_registry():
            pass

    bench.port.redis.replies = {
        "HSCAN": [b"0", [b"1", b"one", b"2", b"one"]],
        "HMGET": lambda key, *asked: [b"x"] * len(asked),
    }

    async def same(*arguments: Any, **options: Any) -> dict[str, Any]:
        return {"devices": [{"device_id": "1"}], "more": True}

    bench.client._call = same  # type: ignore[method-assign]
    asked = bench.begin(walk())
    bench.flush()
    assert isinstance(asked[0], ControlError)


@pytest.mark.parametrize(
    ("address", "number", "has_remedy"),
    [
        ("unix:/s", errno.EACCES, True),
        ("unix:/s", errno.ENOENT, True),
        ("unix:/s", errno.ECONNREFUSED, False),
        ("tcp:127.0.0.1:1", errno.EACCES, False),
    ],
)
def test_reason_of_an_unusable_unix_socket_has_a_remedy(
    address: str, number: int, has_remedy: bool
) -> None:
    reason = reason_of(ConnectError(number))
    assert with_remedy(address, reason).startswith(reason)
    assert (with_remedy(address, reason) != reason) == has_remedy
