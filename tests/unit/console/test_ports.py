"""The control ports that the console finds."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from tests.unit.control.wire import told
from tracker.console.ports import ControlPorts
from tracker.control.pool import Credentials
from tracker.log.redis.advertised import Beat

WHY = "it has TLS: --control-key, --control-cert and --control-ca are needed"


def beat(instance_id: str, control: str | None) -> Beat:
    return Beat(instance_id, 1.0, {"control": control})


def test_a_port_that_takes_files_that_are_not_given_is_told_of_once() -> None:
    clock = Clock()
    ports = ControlPorts(clock, Credentials())
    ports.startService()
    with capturedLogs() as logged:
        for _ in range(2):
            ports.keep([beat("one", "ssl:vm1:5091"), beat("two", None)])
            clock.pump([1.0] * 30)
    assert told(logged, LogLevel.warn) == [f"control port ssl:vm1:5091: {WHY}"]
    # The reason names files, so it stands in the log only.
    assert ports.describe("one") == {"role": "", "why": "it cannot be used; see the console's log"}
    assert ports.role == ""
    ports.keep([beat("two", None)])
    assert ports.describe("two") == {"role": "", "why": "there is none"}
    ports.stopService()
