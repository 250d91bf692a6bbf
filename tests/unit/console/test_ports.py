"""The console's clients of control ports."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from tests.unit.control.network import Network
from tests.unit.control.wire import DEVICE, log_lines
from tracker.console.ports import INTERVAL, ControlPorts, NoInstance
from tracker.control.access import Permission
from tracker.control.commands import NoSuchDevice
from tracker.control.pool import NO_INSTANCE, Credentials
from tracker.log.redis.heartbeats import InstanceHeartbeat

MISSING_FILES = "TLS requires --control-key, --control-cert and --control-ca"
ONE, TWO = "unix:/run/one.sock", "unix:/run/two.sock"


def heartbeat(instance_id: str, control: str | None) -> InstanceHeartbeat:
    return InstanceHeartbeat(instance_id, 1.0, {"control": control})


class Bench(Network):
    """A network of instances, and the console's clients of their control ports."""

    def __init__(self, *given: str) -> None:
        super().__init__()
        self.console = ControlPorts(self.clock, Credentials(), given)

    def instance(self, name: str, permission: Permission = Permission.OPERATE) -> Any:
        """Add an instance with a control port."""
        port = self.add(f"unix:/run/{name}.sock", permission)
        port.instance.instance_id = name
        port.redis.replies = {"EVALSHA": [b"waits", name.encode()], "HMGET": [None], "XLEN": 0}
        return port

    def keep(self, *names: str) -> None:
        """Give the console the heartbeats of these instances."""
        self.console.keep([heartbeat(name, f"unix:/run/{name}.sock") for name in names])
        self.flush()

    def result(self, request: Coroutine[Any, Any, Any]) -> Any:
        """Return the reply to a request, or its exception."""
        results: list[Any] = []
        Deferred.fromCoroutine(request).addCallbacks(
            results.append, lambda failure: results.append(failure.value)
        )
        self.pass_(20)
        (result,) = results
        return result


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench()
    bench.attach(monkeypatch)
    bench.console.startService()
    yield bench
    bench.console.stopService()
    bench.flush()
    assert not bench.clock.getDelayedCalls()


def test_port_that_requires_missing_files_is_logged_once(bench: Bench) -> None:
    ports = bench.console
    with capturedLogs() as logged:
        for _ in range(2):
            ports.keep([heartbeat("one", "ssl:vm1:5091"), heartbeat("two", None)])
            bench.pass_(30)
    assert log_lines(logged, LogLevel.warn) == [f"control port ssl:vm1:5091: {MISSING_FILES}"]
    # The reason names files, so it stands in the log only.
    assert ports.describe("one") == {
        "permission": "",
        "reason": "unusable address; see the console's log",
    }
    assert ports.permission == ""
    ports.keep([heartbeat("two", None)])
    assert ports.describe("two")["permission"] == ""
    assert "has no control port" in ports.describe("two")["reason"]


def test_instances_are_described_with_permission_or_the_reason_for_none(bench: Bench) -> None:
    bench.instance("one").instance.connect(DEVICE)
    bench.instance("two", Permission.READ)
    bench.keep("one", "two", "off")
    known = {"connections": 2, "draining": False}
    assert bench.console.describe("one") == {"permission": "operate", **known}
    assert bench.console.describe("two")["permission"] == "read"
    assert bench.console.describe("off") == {
        "permission": "",
        "reason": "no reply; see the console's log",
    }
    assert bench.console.permission == "operate"
    bench.keep("two")
    assert bench.console.describe("one")["permission"] == ""
    assert "has no control port" in bench.console.describe("one")["reason"]
    assert bench.console.permission == "read"


def test_instance_that_stops_replying_is_logged_once(bench: Bench) -> None:
    bench.instance("one")
    bench.keep("one")
    with capturedLogs() as logged:
        bench.lose(ONE)
        bench.pass_(10 * INTERVAL)
    lines = log_lines(logged)
    assert len(lines) == len(set(lines))
    assert lines[-1] == "control port of one does not reply: connection refused"
    assert bench.console.describe("one")["permission"] == ""


def test_instance_of_a_given_port_is_taken_from_its_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ONE)
    bench.attach(monkeypatch)
    bench.instance("one")
    bench.console.startService()
    bench.pass_(1)
    assert bench.console.describe("one")["permission"] == "operate"
    assert bench.console.client_of("one") is not None
    assert bench.console.client_of("two") is None
    bench.console.stopService()


def test_given_port_with_tls_that_does_not_reply_belongs_to_its_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Credentials(Path("our.key"), Path("our.pem"), Path("ca.pem"))
    advertised = "ssl:one.example:5099"
    bench = Network()
    bench.attach(monkeypatch)
    console = ControlPorts(bench.clock, files, [files.address(advertised)])
    console.startService()
    console.keep([heartbeat("one", advertised)])
    assert console.client_of("one") is not None
    console.stopService()


def test_command_is_sent_through_its_own_instance_first(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.instance(name)
    bench.keep("one", "two")
    for name in ("two", "one"):
        sending = bench.console.send_command(DEVICE, "getinfo", name, command_id="c1")
        assert bench.result(sending)["instance_id"] == name


def test_command_is_sent_through_another_instance_if_its_own_is_gone(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.instance(name)
    bench.keep("one", "two")
    bench.lose(TWO)
    sending = bench.console.send_command(DEVICE, "getinfo", "two", command_id="c1")
    assert bench.result(sending)["instance_id"] == "one"


def test_refusal_of_an_instance_is_raised(bench: Bench) -> None:
    bench.instance("one")
    bench.keep("one")
    assert isinstance(bench.result(bench.console.device(DEVICE, "one")), NoSuchDevice)


@pytest.mark.parametrize(
    ("names", "reason"),
    [((), NO_INSTANCE), (("one",), "one: connection refused")],
)
def test_request_without_a_reachable_instance_raises_no_instance(
    bench: Bench, names: tuple[str, ...], reason: str
) -> None:
    bench.keep(*names)
    error = bench.result(bench.console.send_command(DEVICE, "getinfo", None, command_id="c1"))
    assert isinstance(error, NoInstance)
    assert str(error) == reason
    # Requests other than commands are not sent to instances that do not reply to Info.
    error = bench.result(bench.console.command_status("c1", None))
    assert str(error) == reason
