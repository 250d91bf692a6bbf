"""ACKs that cannot be sent, because the address of the sender was forged."""

from __future__ import annotations

import errno
import gc

import pytest
from twisted.internet.testing import FakeDatagramTransport
from twisted.logger import LogLevel, capturedLogs

from tests.unit.vendors.posts import Port, post


class Unroutable(FakeDatagramTransport):
    """Refuses to send, as the kernel does to port 0 or a broadcast address."""

    def write(self, packet: bytes, addr: object = None) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.fixture
def port() -> Port:
    port = Port()
    port.protocol.transport = Unroutable()
    port.gateway.confirms_immediately = True
    return port


def test_ack_that_cannot_be_sent_is_ignored(port: Port) -> None:
    with capturedLogs() as events:
        port.receive(post(), ("192.0.2.7", 0))
        port.gateway.published.clear()
        gc.collect()  # an unhandled failure is logged when its Deferred is collected
    assert not [event for event in events if event["log_level"] is LogLevel.critical]


def test_repeated_ack_that_cannot_be_sent_is_ignored(port: Port) -> None:
    port.receive(post(), ("192.0.2.7", 0))
    port.receive(post(), ("192.0.2.7", 0))
