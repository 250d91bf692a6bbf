"""The bridge finds and uses the control ports of running instances; without sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.certificates import certify, key_of
from tests.unit.control.network import Network
from tests.unit.control.wire import DEVICE, Port
from tests.unit.fakes import FakeRedis
from tracker.bridge.instances import (
    CONNECT_TIMEOUT,
    INTERVAL,
    Instances,
    NoInstance,
)
from tracker.control.access import Permission
from tracker.control.commands import BadArgument, InternalError
from tracker.control.connection import REPLY_TIMEOUT
from tracker.control.pool import CLOSE_TIMEOUT, MAX_PORTS, NO_CONTROL_PORT, NO_INSTANCE, Credentials
from tracker.observe.health import Condition

ONE, TWO = "unix:/run/one.sock", "unix:/run/two.sock"
TLS = "ssl:ingest.example:9120"


class Heartbeats(FakeRedis):
    """Redis with the heartbeats of instances."""

    def __init__(self) -> None:
        super().__init__(replies={"SCAN": self._scan, "MGET": self._values})
        self.control: dict[str, str | None] = {}
        self.scans = 0

    def _scan(self, *_: Any) -> Any:
        self.scans += 1
        return [b"0", [f"instance:heartbeat:{one}".encode() for one in self.control]]

    def _values(self, *keys: str) -> Any:
        ids = [key.removeprefix("instance:heartbeat:") for key in keys]
        return [json.dumps({"control": self.control[one]}).encode() for one in ids]


class Bench(Network):
    """Instances with control ports, and the object under test."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__()
        self.redis = Heartbeats()
        self.reports: list[str | None] = []
        redis: Any = self.redis
        self.instances = Instances(
            self.clock, redis, credentials or Credentials(), Condition(self.reports.append)
        )

    def add(self, address: str, role: Permission = Permission.OPERATE) -> Port:
        """Add a running instance that accepts commands."""
        port = super().add(address, role)
        port.redis.replies = {"EVALSHA": [b"moved", address[-8:-5].encode()]}
        self.redis.control[address[-8:-5]] = address
        return port

    def start(self) -> Bench:
        self.instances.startService()
        self.pass_()
        return self

    def send(self, command_id: str = "c1", **options: Any) -> list[Any]:
        """Send a command; the returned list gets the reply or the exception."""
        results: list[Any] = []
        sending = self.instances.send_command(DEVICE, "getinfo", command_id=command_id, **options)
        Deferred.fromCoroutine(sending).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.flush()
        return results

    def answering_instance(self) -> str:
        """Send a command, and return the id of the instance that replies."""
        (reply,) = self.send()
        assert isinstance(reply, dict), reply
        instance_id: str = reply["instance_id"]
        return instance_id


def forwarded_commands(port: Port) -> int:
    """Return the number of commands that an instance has forwarded."""
    return sum(command[0] == "EVALSHA" for command in port.redis.sent)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench()
    made.attach(monkeypatch)
    yield made
    made.instances.stopService()
    made.flush()


def test_running_instance_accepts_a_command(bench: Bench) -> None:
    port = bench.add(ONE)
    bench.start()
    assert bench.reports == [None]
    assert bench.answering_instance() == "one"
    assert forwarded_commands(port) == 1


def test_missing_instance_is_reported(bench: Bench) -> None:
    bench.start()
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert str(error) == NO_INSTANCE
    assert bench.reports[-1] == str(error)


def test_instances_without_control_ports_are_reported(bench: Bench) -> None:
    bench.redis.control["one"] = None
    bench.start()
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert str(error) == bench.reports[-1] == NO_CONTROL_PORT


def test_commands_trigger_at_most_one_lookup_a_second(bench: Bench) -> None:
    bench.start()
    before = bench.redis.scans
    bench.clock.advance(1)
    for _ in range(20):
        assert isinstance(bench.send()[0], NoInstance)
    assert bench.redis.scans == before + 1
    bench.add(ONE)
    bench.clock.advance(1)
    assert bench.answering_instance() == "one"


def test_known_instance_is_used_while_redis_is_down(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    bench.redis.connected = False
    bench.pass_(3 * INTERVAL)
    assert bench.answering_instance() == "one"


def test_instance_without_heartbeat_is_disconnected(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    bench.redis.control.clear()
    bench.pass_(INTERVAL)
    assert bench.reports[-1] == NO_INSTANCE
    assert bench.pumps[ONE][1].disconnected
    assert isinstance(bench.send()[0], NoInstance)


def test_command_is_sent_to_another_instance_after_a_lost_connection(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    first = bench.answering_instance()
    lost, other = (ONE, "two") if first == "one" else (TWO, "one")
    bench.lose(lost)
    assert bench.answering_instance() == other
    assert bench.reports[-1] is None


def test_lost_connection_is_restored(bench: Bench) -> None:
    """A restarted instance may have the same address and never lack a heartbeat."""
    port = bench.add(ONE)
    bench.start()
    bench.lose(ONE)
    assert "unix:/run/one.sock: connection closed by the instance" in str(bench.reports[-1])
    waiting = bench.send()
    assert not waiting
    bench.ports[ONE] = port
    bench.pass_(2)
    assert waiting[0]["instance_id"] == "one"
    assert bench.reports[-1] is None


def test_command_waits_for_an_unreachable_instance_until_a_timeout(bench: Bench) -> None:
    bench.add(ONE)
    bench.ports[ONE] = None
    bench.start()
    waiting = [bench.send() for _ in range(8)]
    bench.pass_(CONNECT_TIMEOUT - 1)
    assert waiting == [[]] * 8
    bench.pass_(1)
    assert {str(error) for (error,) in waiting} == {f"{ONE}: connection refused"}
    assert bench.reports[-1] == f"{ONE}: connection refused"
    assert len(bench.attempts) < 8


def test_command_that_an_instance_does_not_accept_in_time_goes_to_another(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    hanging = ONE if bench.answering_instance() == "one" else TWO
    (port,) = [bench.ports[hanging]]
    assert port is not None
    port.redis.replies = {"EVALSHA": Deferred()}
    sent = bench.send()
    bench.pass_(REPLY_TIMEOUT - 1)
    assert not sent
    bench.pass_(2)
    assert sent[0]["instance_id"] == ("two" if hanging == ONE else "one")
    # The next command does not try the hanging instance first.
    assert bench.send()


def test_timeout_of_the_only_instance_is_reported(bench: Bench) -> None:
    port = bench.add(ONE)
    bench.start()
    port.redis.replies = {"EVALSHA": Deferred()}
    sent = bench.send()
    bench.pass_(REPLY_TIMEOUT + 1)
    assert str(sent[0]) == f"{ONE}: no reply within 15s"
    assert isinstance(sent[0], NoInstance)


def test_instance_without_redis_is_skipped(bench: Bench) -> None:
    one, two = bench.add(ONE), bench.add(TWO)
    bench.start()
    one.redis.connected = False
    assert {bench.answering_instance() for _ in range(4)} == {"two"}
    two.redis.connected = False
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert "Redis: not connected" in str(error)
    assert not bench.pumps[ONE][1].disconnected
    one.redis.connected = True
    assert bench.answering_instance() == "one"


def test_instance_without_permission_is_skipped(bench: Bench) -> None:
    bench.add(ONE, Permission.READ)
    bench.add(TWO)
    bench.start()
    assert {bench.answering_instance() for _ in range(4)} == {"two"}
    bench.redis.control.pop("two")
    bench.pass_(INTERVAL)
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert str(error).startswith(f"{ONE}: ")
    assert "--control-permissions" in str(error)
    assert bench.reports[-1] == str(error)


def test_bad_argument_is_not_sent_to_a_second_instance(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    (error,) = bench.send(timeout=-1.0)
    assert isinstance(error, BadArgument)
    assert bench.reports[-1] is None


def test_internal_error_with_one_command_leaves_the_bridge_ready(bench: Bench) -> None:
    """All instances are tried, since the cause may be the instance."""
    for address in (ONE, TWO):
        bench.add(address).redis.replies = {"EVALSHA": RuntimeError("a fault")}
    bench.start()
    (error,) = bench.send()
    assert isinstance(error, InternalError)
    assert bench.reports[-1] is None


def test_malformed_address_is_reported_and_skipped(bench: Bench) -> None:
    bench.redis.control["bad"] = "pigeon"
    bench.start()
    bench.pass_(INTERVAL)
    assert str(bench.reports[-1]).startswith("pigeon: must be like localhost:")
    bench.add(ONE)
    bench.pass_(INTERVAL)
    assert bench.answering_instance() == "one"


def test_missing_certificate_is_reported_for_tls(bench: Bench) -> None:
    bench.redis.control["tls"] = TLS
    bench.start()
    sent = bench.send()
    bench.pass_(CONNECT_TIMEOUT)
    needed = "TLS requires --control-key, --control-cert and --control-ca"
    assert str(sent[0]) == f"{TLS}: {needed}"


def test_certificates_are_read_when_a_connection_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that is created later is found, and a colon in its name does no harm."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    certificate = folder / "127.0.0.1.pem"
    bench = Bench(Credentials(key_of(certificate), certificate, certificate))
    bench.attach(monkeypatch)
    bench.redis.control["tls"] = TLS
    bench.start()
    bench.pass_(INTERVAL)
    assert str(bench.reports[-1]).startswith(f"{TLS}: {folder}")
    assert "No such file" in str(bench.reports[-1])
    assert not bench.attempts
    certify(folder, "127.0.0.1")
    bench.pass_(INTERVAL)
    assert len(bench.attempts) >= 1
    assert str(bench.reports[-1]).startswith(f"{TLS}: ")
    bench.instances.stopService()


def test_stop_closes_all_connections(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.ports[TWO] = None
    bench.start()
    stopped: list[Any] = []
    bench.instances.stopService().addBoth(stopped.append)
    bench.flush()
    assert stopped == [None]
    assert bench.pumps[ONE][1].disconnected
    assert isinstance(bench.send()[0], NoInstance)
    assert not bench.clock.getDelayedCalls()


def test_stop_does_not_wait_for_a_hanging_instance(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    near: Any = bench.pumps[ONE][0].client
    near.transport.loseConnection = lambda: None  # like TLS, which waits for the other side
    stopped: list[Any] = []
    bench.instances.stopService().addBoth(stopped.append)
    bench.pass_(CLOSE_TIMEOUT - 1)
    assert not stopped
    bench.pass_(1)
    assert stopped == [None]


def test_each_of_many_control_ports_is_tried_and_a_usable_one_stays_connected(bench: Bench) -> None:
    for number in range(1, 1000):
        bench.redis.control[f"forged{number}"] = f"tcp:127.0.0.1:{number}"
    port = bench.add(ONE)
    assert port is not None
    bench.start()
    for _ in range(10):
        bench.pass_(INTERVAL)
        assert len(bench.instances._pool.clients) <= MAX_PORTS
    assert bench.answering_instance() == "one"
    assert set(bench.redis.control.values()) <= set(bench.attempts)
    assert all(len(reason) < 2000 for reason in bench.reports if reason is not None)
