"""Start, stop and abort of services."""

from __future__ import annotations

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogLevel, capturedLogs

from tracker.net.listener import Listener
from tracker.runtime.lifecycle import Role


class Recorded(Service):
    """Records its stop, which ends when the test fires ``stopped``."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.setName(name)
        self.log = log
        self.stopped: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.log.append(str(self.name))
        return self.stopped


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def children(log: list[str]) -> list[Recorded]:
    return [Recorded(name, log) for name in ("redis", "publisher", "port")]


def test_role_stops_its_services_one_by_one_in_reverse_order(
    log: list[str], children: list[Recorded]
) -> None:
    role = Role()
    for child in children:
        child.setServiceParent(role)
    role.startService()
    done: list[object] = []
    role.stopService().addCallback(done.append)
    for count, child in enumerate(reversed(children), 1):
        assert log == ["port", "publisher", "redis"][:count]
        assert not done
        child.stopped.callback(None)
    assert done == [None]


def test_failing_stop_does_not_prevent_the_stop_of_other_services(
    log: list[str], children: list[Recorded]
) -> None:
    role = Role()
    for child in children:
        child.setServiceParent(role)
    children[0].stopped.callback(None)
    children[1].stopped.callback(None)
    children[2].stopped.errback(RuntimeError("stuck"))
    role.startService()
    done: list[object] = []
    with capturedLogs() as events:
        role.stopService().addCallback(done.append)
    assert (log, done) == (["port", "publisher", "redis"], [None])
    assert [event["log_level"] for event in events] == [LogLevel.critical]


class BusyEndpoint(TCP4ServerEndpoint):
    """An endpoint whose port another process uses."""

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[object]:  # noqa: N803
        return fail(CannotListenError("", 5027, OSError(98, "Address already in use")))


def test_port_in_use_aborts_the_process_once() -> None:
    reasons: list[str] = []
    endpoint = BusyEndpoint(MemoryReactor(), 5027)
    listener = Listener("teltonika=tcp:5027", endpoint, Factory(), reasons.append)
    listener.privilegedStartService()
    listener.startService()
    assert reasons == [
        "cannot listen on teltonika=tcp:5027: address already in use. "
        "Stop the process that uses it, or choose another port."
    ]
    assert listener.stopService().called
