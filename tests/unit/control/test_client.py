"""A client in Python: what it is told, and how it comes back when the connection is lost."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from attrs import define, field
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as network
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory, ISSLTransport, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump
from zope.interface import alsoProvides, implementer

from tests.unit.control.wire import DEVICE, OTHER, Port, ServerTransport, quiet, slow
from tracker.control import connection as module
from tracker.control.access import ControlRole
from tracker.control.client import ControlClient
from tracker.control.commands import (
    CODES,
    BadArgument,
    ControlError,
    DropConnection,
    Info,
    NoSuchDevice,
    NotPermitted,
    VersionMismatch,
)
from tracker.control.connection import (
    ANSWER_TIMEOUT,
    FIRST_RETRY,
    GREETING_TIMEOUT,
    LAST_RETRY,
    NotConnected,
)
from tracker.control.conversation import MOST_WATCHED
from tracker.control.watching import DeviceEvent, Watches
from tracker.interfaces import Traffic


def refusal() -> Exception:
    """What nobody listening comes to."""
    return network.ConnectionRefusedError(errno.ECONNREFUSED, "no")


@implementer(IStreamClientEndpoint)
@define
class Endpoint:
    """Leads to a control port, while there is one; the test says when."""

    clock: Clock
    port: Port | None = None
    attempts: list[tuple[IProtocolFactory, Deferred[Any]]] = field(factory=list)
    pump: IOPump | None = None
    far: ServerTransport | None = None
    cancelled: int = 0
    cancelling: Callable[[], None] = lambda: None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        def cancel(_: object) -> None:
            self.cancelled += 1
            self.cancelling()

        attempt: Deferred[Any] = Deferred(cancel)
        self.attempts.append((protocolFactory, attempt))
        return attempt

    def succeed(self) -> None:
        """The attempt that is under way succeeds."""
        assert self.port is not None
        factory, attempt = self.attempts.pop(0)
        near: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        server = self.port.build()
        self.far = ServerTransport(server)
        transport = Near(near)
        server.makeConnection(self.far)
        near.makeConnection(transport)
        self.pump = IOPump(near, server, transport, self.far, False, clock=self.clock)
        attempt.callback(near)
        self.pump.flush()

    def fail(self, error: Exception) -> None:
        """It fails."""
        self.attempts.pop(0)[1].errback(error)

    def lose(self) -> None:
        """The instance goes away."""
        assert self.far is not None
        assert self.pump is not None
        self.far.abortConnection()
        self.pump.flush()


class Near(FakeTransport):
    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol, False)
        self.aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Bench:
    """A client, and the port that it may reach."""

    def __init__(self, retry: bool = True, role: ControlRole = ControlRole.OPERATE) -> None:
        self.port = Port(role)
        self.clock = self.port.clock
        self.endpoint = Endpoint(self.clock, self.port)
        self.client = ControlClient(self.clock, self.endpoint, "test", retry)
        self.client.startService()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
        """Has the result, or the exception, when there is one."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.flush()
        return results

    def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result, or the exception, that is there at once."""
        (result,) = self.begin(coroutine)
        return result

    def flush(self) -> None:
        if self.endpoint.pump is not None:
            self.endpoint.pump.flush()

    def stop(self) -> list[Any]:
        stopped: list[Any] = []
        self.client.stopService().addBoth(stopped.append)
        self.flush()
        return stopped


@pytest.fixture
def bench() -> Bench:
    """One that is connected."""
    bench = Bench()
    bench.endpoint.succeed()
    return bench


def test_it_greets_before_it_is_asked(bench: Bench) -> None:
    assert bench.client.greeting["instance_id"] == "one"
    assert bench.client.greeting["role"] == "operate"
    assert bench.ask(bench.client.info())["instance_id"] == "one"


def test_what_is_asked_before_it_is_connected_is_asked_then() -> None:
    bench = Bench()
    asked = [bench.begin(bench.client.info()) for _ in range(3)]
    assert asked == [[], [], []]
    bench.endpoint.succeed()
    assert [one[0]["instance_id"] for one in asked] == ["one"] * 3
    assert bench.stop() == [None]
    assert bench.port.timers == 0


async def rows(pages: Any) -> list[str]:
    return [row["device_id"] async for row in pages]


def test_pages_are_asked_for_as_they_are_wanted(bench: Bench) -> None:
    devices = [f"{number:03}" for number in range(450)]
    for device_id in devices:
        bench.port.instance.connect(device_id)
    assert bench.ask(rows(bench.client.connections())) == devices
    assert bench.ask(rows(bench.client.connections("1", limit=7))) == devices[100:200]
    assert bench.ask(rows(bench.client.connections(vendor="nobody"))) == []
    scanned = [part.encode() for one in devices for part in (one, "two")]
    bench.port.redis.answers = {
        "HSCAN": [b"0", scanned],
        "HMGET": lambda key, *asked: [b"x"] * len(asked),
    }
    assert bench.ask(rows(bench.client.registry())) == devices
    assert bench.ask(rows(bench.client.registry(instance_id="one"))) == []
    assert bench.ask(rows(bench.client.registry("00", limit=3))) == devices[:10]


def test_lag_is_asked_for_page_by_page(bench: Bench) -> None:
    group = [b"g", 1, 0, None, None, [], 0]
    facts = [b"length", 1, b"entries-added", 1]
    bench.port.redis.answers = {
        "SCAN": [b"0", []],
        "EVALSHA": [[b"1", b"0"], facts, [[b"%03d" % n, *group[1:]] for n in range(450)]],
    }
    found = bench.ask(bench.client.lag())
    assert [row["group"] for row in found] == [f"{number:03}" for number in range(450)]
    assert len(bench.ask(bench.client.lag(["s"]))) == 450


def test_everything_else_is_asked_for_as_it_is_called(bench: Bench) -> None:
    client, port = bench.client, bench.port
    port.instance.connect(DEVICE)
    port.redis.answers = {
        "HMGET": [b"one"],
        "XLEN": 0,
        "EVALSHA": [b"moved", b"two"],
        "GET": b"sent commands:outbound:two 1-1",
    }
    assert bench.ask(client.device(DEVICE))["here"] is True
    sent = bench.ask(client.send_command(DEVICE, "getinfo", command_id="c1", timeout=5.0))
    assert (sent["command_id"], sent["status"]) == ("c1", "queued")
    assert bench.ask(client.command_status("c1", DEVICE))["status"] == "sent"
    assert bench.ask(client.set_log_level("debug", "tracker.ingestion")) == "info"
    assert bench.ask(client.drop_connection(DEVICE)) == "192.0.2.1:40000"
    assert isinstance(bench.ask(client.drain(math.nan)), BadArgument)
    drained = bench.begin(client.drain(2.0))
    port.instance.drains[0][1].callback((3, 0))
    bench.flush()
    assert drained == [{"closed": 3, "left": 0}]


def test_errors_are_raised_as_what_they_are(bench: Bench) -> None:
    client = bench.client
    assert isinstance(bench.ask(client.drop_connection(DEVICE)), NoSuchDevice)
    assert isinstance(bench.ask(client.set_log_level("loud")), BadArgument)
    reading = Bench(role=ControlRole.READ)
    reading.endpoint.succeed()
    assert isinstance(reading.ask(reading.client.drain(1.0)), NotPermitted)


@pytest.mark.parametrize("text", ["x" * 70_000, "\ud800"])
def test_what_cannot_be_sent_is_a_bad_argument(bench: Bench, text: str) -> None:
    error = bench.ask(bench.client.drop_connection(text))
    assert isinstance(error, BadArgument)
    assert bench.ask(bench.client.info())


def test_options_are_those_that_there_are(bench: Bench) -> None:
    client = bench.client
    bench.port.redis.answers = {"EVALSHA": [b"waits", b""]}
    for arguments, told in (
        ({"offlin": "fail"}, "SendCommand has no argument offlin"),
        ({"timeout": "soon"}, "timeout cannot be sent: Bad float value"),
        ({"codec": 12}, "codec cannot be sent: "),
        ({"codec": "\ud800"}, "codec cannot be sent: is not UTF-8"),
    ):
        error = bench.ask(client.send_command(DEVICE, "getinfo", **arguments))
        assert isinstance(error, BadArgument)
        assert told in str(error)
    assert bench.ask(client.send_command(DEVICE, "getinfo", timeout=5, expires_in=60))
    bench.begin(client.drain(3))
    assert bench.port.instance.drains[0][0] == 3.0


def test_a_command_that_the_instance_does_not_know(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Info, "commandName", b"InfoTwo")
    error = bench.ask(bench.client.info())
    assert isinstance(error, VersionMismatch)
    assert str(error) == "the instance does not know Info: it is of an older version"
    monkeypatch.undo()
    assert bench.ask(bench.client.info())


def test_an_error_that_the_client_does_not_know(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {b"BAD_ARGUMENT": BadArgument}
    monkeypatch.setattr(DropConnection, "reverseErrors", codes)
    error = bench.ask(bench.client.drop_connection(DEVICE))
    assert type(error) is ControlError
    assert "is not connected to this instance" in str(error)
    assert bench.ask(bench.client.info())


def test_an_answer_is_waited_for_so_long(bench: Bench) -> None:
    waiting = slow(bench.port)
    asked = bench.begin(bench.client.device(DEVICE))
    bench.clock.advance(ANSWER_TIMEOUT)
    (error,) = asked
    assert isinstance(error, NotConnected)
    assert str(error) == "no answer within 15 s"
    waiting[0].callback([b"two"])  # and comes after all
    assert bench.ask(bench.client.info())


def test_for_a_command_it_waits_however_long_it_takes(bench: Bench) -> None:
    bench.port.redis.answers = {"EVALSHA": [b"waits", b""]}
    asked = bench.begin(bench.client.send_command(DEVICE, "getinfo", wait=True))
    bench.clock.pump([0.1] * 3000)
    assert not asked
    content = [b"status", b"responded", b"response", b"fine"]
    bench.port.redis.answers = {"GET": b"done responded 1-1", "XRANGE": [[b"1-1", content]]}
    bench.clock.advance(0.1)
    bench.flush()
    assert asked[0]["response"] == "fine"


# Connecting.


def test_without_a_start_nothing_is_asked() -> None:
    port = Port()
    client = ControlClient(port.clock, Endpoint(port.clock, port))
    results: list[Any] = []
    Deferred.fromCoroutine(client.info()).addErrback(lambda f: results.append(f.value))
    assert str(results[0]) == "not started"


def test_it_tries_again_less_and_less_often() -> None:
    bench = Bench()
    step = FIRST_RETRY
    for _ in range(8):
        bench.endpoint.fail(refusal())
        before = bench.clock.seconds()
        while not bench.endpoint.attempts:
            bench.clock.advance(0.01)
        assert step / 2 <= bench.clock.seconds() - before <= step + 0.02
        step = min(2 * step, LAST_RETRY)
    assert step == LAST_RETRY
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())
    bench.endpoint.lose()
    bench.clock.advance(FIRST_RETRY)
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
    bench.port.factory.roles.local = None  # type: ignore[assignment]
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
    monkeypatch.setattr("tests.unit.control.test_client.Near", Secure)
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
    bench.clock.advance(FIRST_RETRY)
    bench.endpoint.succeed()
    happened(bench)
    assert len(events) == 2
    assert bench.ask(bench.client.unwatch(DEVICE)) is None
    happened(bench)
    assert len(events) == 2
    bench.endpoint.lose()
    bench.clock.advance(FIRST_RETRY)
    bench.endpoint.succeed()
    assert not bench.port.instance.watched


def test_what_is_not_watched_any_more_by_the_next_connection_is_not(bench: Bench) -> None:
    bench.ask(bench.client.watch(DEVICE, lambda event: None))
    bench.endpoint.lose()
    assert bench.ask(bench.client.unwatch(DEVICE)) is None
    bench.clock.advance(FIRST_RETRY)
    bench.endpoint.succeed()
    assert not bench.port.instance.watched
    assert isinstance(bench.ask(bench.client.unwatch(DEVICE)), NoSuchDevice)


def test_a_device_that_could_not_be_watched_does_not_keep_it_from_coming_back(
    bench: Bench,
) -> None:
    for number in range(MOST_WATCHED):
        bench.ask(bench.client.watch(str(number), lambda event: None))
    error = bench.ask(bench.client.watch(DEVICE, lambda event: None))
    assert isinstance(error, BadArgument)
    bench.endpoint.lose()
    bench.clock.advance(FIRST_RETRY)
    bench.endpoint.succeed()
    assert bench.ask(bench.client.info())["watchers"] == 1
    assert len(bench.port.instance.watched) == MOST_WATCHED


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
    bench.clock.advance(FIRST_RETRY)
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
        async for _ in bench.client.registry():
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
