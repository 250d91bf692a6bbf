"""Control ports of the instances that live: real ones and real clients, on wires."""

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
    INTERVAL,
    PATIENCE,
    Instances,
    NoInstance,
)
from tracker.control.access import Permission
from tracker.control.commands import BadArgument, InternalError
from tracker.control.connection import REPLY_TIMEOUT
from tracker.control.pool import CLOSE_TIMEOUT, MAX_PORTS, Credentials
from tracker.observe.health import Condition

ONE, TWO = "unix:/run/one.sock", "unix:/run/two.sock"
TLS = "ssl:ingest.example:9120"


class Heartbeats(FakeRedis):
    """Redis with heartbeats."""

    def __init__(self) -> None:
        super().__init__(answers={"SCAN": self._scan, "MGET": self._values})
        self.control: dict[str, str] = {}
        self.scans = 0

    def _scan(self, *_: Any) -> Any:
        self.scans += 1
        return [b"0", [f"instance:heartbeat:{one}".encode() for one in self.control]]

    def _values(self, *keys: str) -> Any:
        ids = [key.removeprefix("instance:heartbeat:") for key in keys]
        return [json.dumps({"control": self.control[one]}).encode() for one in ids]


class Bench(Network):
    """Instances that take commands, and what finds them."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__()
        self.redis = Heartbeats()
        self.reports: list[str | None] = []
        redis: Any = self.redis
        self.instances = Instances(
            self.clock, redis, credentials or Credentials(), Condition(self.reports.append)
        )

    def add(self, address: str, role: Permission = Permission.OPERATE) -> Port:
        """An instance that lives, and takes commands."""
        port = super().add(address, role)
        port.redis.answers = {"EVALSHA": [b"moved", address[-8:-5].encode()]}
        self.redis.control[address[-8:-5]] = address
        return port

    def start(self) -> Bench:
        self.instances.startService()
        self.pass_()
        return self

    def send(self, command_id: str = "c1", **options: Any) -> list[Any]:
        """Has the answer, or the exception, when there is one."""
        results: list[Any] = []
        sending = self.instances.send_command(DEVICE, "getinfo", command_id=command_id, **options)
        Deferred.fromCoroutine(sending).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.flush()
        return results

    def taken_by(self) -> str:
        """The instance that answers a command."""
        ((answer),) = self.send()
        assert isinstance(answer, dict), answer
        who: str = answer["instance_id"]
        return who


def calls(port: Port) -> int:
    """How many commands a port has passed on."""
    return sum(command[0] == "EVALSHA" for command in port.redis.asked)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench()
    made.attach(monkeypatch)
    yield made
    made.instances.stopService()
    made.flush()


def test_one_that_lives_takes_a_command(bench: Bench) -> None:
    port = bench.add(ONE)
    bench.start()
    assert bench.reports == [None]
    assert bench.taken_by() == "one"
    assert calls(port) == 1


def test_without_any_it_says_so(bench: Bench) -> None:
    bench.start()
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert str(error) == "no instance with a control port lives"
    assert bench.reports[-1] == str(error)


def test_those_who_are_in_a_hurry_look_once_a_second_together(bench: Bench) -> None:
    bench.start()
    before = bench.redis.scans
    bench.clock.advance(1)
    for _ in range(20):
        assert isinstance(bench.send()[0], NoInstance)
    assert bench.redis.scans == before + 1
    bench.add(ONE)
    bench.clock.advance(1)
    assert bench.taken_by() == "one"


def test_with_redis_away_those_that_are_known_are_asked(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    bench.redis.connected = False
    bench.pass_(3 * INTERVAL)
    assert bench.taken_by() == "one"


def test_one_without_a_heartbeat_is_left(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    bench.redis.control.clear()
    bench.pass_(INTERVAL)
    assert bench.reports[-1] == "no instance with a control port lives"
    assert bench.pumps[ONE][1].disconnected
    assert isinstance(bench.send()[0], NoInstance)


def test_another_takes_over(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    first = bench.taken_by()
    lost, other = (ONE, "two") if first == "one" else (TWO, "one")
    bench.lose(lost)
    assert bench.taken_by() == other
    assert bench.reports[-1] is None


def test_a_connection_is_made_again_by_itself(bench: Bench) -> None:
    """As a restarted instance needs it, whose heartbeat was there all the time."""
    port = bench.add(ONE)
    bench.start()
    bench.lose(ONE)
    assert "unix:/run/one.sock: the instance has closed the connection" in str(bench.reports[-1])
    waiting = bench.send()
    assert not waiting
    bench.ports[ONE] = port
    bench.pass_(2)
    assert waiting[0]["instance_id"] == "one"
    assert bench.reports[-1] is None


def test_what_cannot_be_reached_is_waited_for_a_little(bench: Bench) -> None:
    bench.add(ONE)
    bench.ports[ONE] = None
    bench.start()
    waiting = [bench.send() for _ in range(8)]
    bench.pass_(PATIENCE - 1)
    assert waiting == [[]] * 8
    bench.pass_(1)
    assert {str(error) for (error,) in waiting} == {f"{ONE}: Connection refused"}
    assert bench.reports[-1] == f"{ONE}: Connection refused"
    assert len(bench.attempts) < 8


def test_one_that_hangs_is_left_for_another(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    hanging = ONE if bench.taken_by() == "one" else TWO
    (port,) = [bench.ports[hanging]]
    assert port is not None
    port.redis.answers = {"EVALSHA": Deferred()}
    sent = bench.send()
    bench.pass_(REPLY_TIMEOUT - 1)
    assert not sent
    bench.pass_(2)
    assert sent[0]["instance_id"] == ("two" if hanging == ONE else "one")
    # And is not asked first again.
    assert bench.send()


def test_one_that_hangs_alone_is_told(bench: Bench) -> None:
    port = bench.add(ONE)
    bench.start()
    port.redis.answers = {"EVALSHA": Deferred()}
    sent = bench.send()
    bench.pass_(REPLY_TIMEOUT + 1)
    assert str(sent[0]) == f"{ONE}: no answer within 15 s"
    assert isinstance(sent[0], NoInstance)


def test_one_whose_redis_is_away_is_no_obstacle(bench: Bench) -> None:
    one, two = bench.add(ONE), bench.add(TWO)
    bench.start()
    one.redis.connected = False
    assert {bench.taken_by() for _ in range(4)} == {"two"}
    two.redis.connected = False
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert "Redis: not connected" in str(error)
    assert not bench.pumps[ONE][1].disconnected
    one.redis.connected = True
    assert bench.taken_by() == "one"


def test_one_that_does_not_permit_it_is_no_obstacle(bench: Bench) -> None:
    bench.add(ONE, Permission.READ)
    bench.add(TWO)
    bench.start()
    assert {bench.taken_by() for _ in range(4)} == {"two"}
    bench.redis.control.pop("two")
    bench.pass_(INTERVAL)
    (error,) = bench.send()
    assert isinstance(error, NoInstance)
    assert str(error) == (
        f"{ONE}: that requires the permission operate, which the bridge does not have there"
    )
    assert bench.reports[-1] == str(error)


def test_what_makes_no_sense_is_asked_of_one_only(bench: Bench) -> None:
    bench.add(ONE)
    bench.add(TWO)
    bench.start()
    (error,) = bench.send(timeout=-1.0)
    assert isinstance(error, BadArgument)
    assert bench.reports[-1] is None


def test_a_fault_with_one_command_is_told_of_that(bench: Bench) -> None:
    """All are asked, in case it is theirs; who is asked next is not told that none lives."""
    for address in (ONE, TWO):
        bench.add(address).redis.answers = {"EVALSHA": RuntimeError("a fault")}
    bench.start()
    (error,) = bench.send()
    assert isinstance(error, InternalError)
    assert bench.reports[-1] is None


def test_an_address_that_is_none_is_told_and_is_no_obstacle(bench: Bench) -> None:
    bench.redis.control["bad"] = "pigeon:1"
    bench.start()
    bench.pass_(INTERVAL)
    assert str(bench.reports[-1]).startswith("pigeon:1: must begin with unix:PATH")
    bench.add(ONE)
    bench.pass_(INTERVAL)
    assert bench.taken_by() == "one"


def test_a_certificate_is_asked_for_when_it_is_needed(bench: Bench) -> None:
    bench.redis.control["tls"] = TLS
    bench.start()
    sent = bench.send()
    bench.pass_(PATIENCE)
    needed = "it has TLS: --control-key, --control-cert and --control-ca are needed"
    assert str(sent[0]) == f"{TLS}: {needed}"


def test_certificates_are_read_when_a_connection_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under any name; and a file that comes later will do."""
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


def test_a_stop_closes_all_and_lets_nobody_wait(bench: Bench) -> None:
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


def test_a_stop_does_not_wait_for_one_that_hangs(bench: Bench) -> None:
    bench.add(ONE)
    bench.start()
    near: Any = bench.pumps[ONE][0].client
    near.transport.loseConnection = lambda: None  # as TLS does, until the other side agrees
    stopped: list[Any] = []
    bench.instances.stopService().addBoth(stopped.append)
    bench.pass_(CLOSE_TIMEOUT - 1)
    assert not stopped
    bench.pass_(1)
    assert stopped == [None]


def test_of_many_control_ports_each_is_tried_and_a_usable_one_is_kept(bench: Bench) -> None:
    for number in range(1, 1000):
        bench.redis.control[f"forged{number}"] = f"tcp:127.0.0.1:{number}"
    port = bench.add(ONE)
    assert port is not None
    bench.start()
    for _ in range(10):
        bench.pass_(INTERVAL)
        assert len(bench.instances._pool.clients) <= MAX_PORTS
    assert bench.taken_by() == "one"
    assert set(bench.redis.control.values()) <= set(bench.attempts)
    assert all(len(reason) < 2000 for reason in bench.reports if reason is not None)
