"""Tests of the pool of clients of advertised control ports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from tracker.control import pool as module
from tracker.control.connection import NotConnected
from tracker.control.pool import MAX_PORTS, BadAddress, ControlPool, Credentials

ONE, TWO = "unix:/run/one.sock", "unix:/run/two.sock"
FILES = Credentials(Path("/k:ey"), Path("/cert"), Path("/ca"))
TLS = "ssl:vm1:5091"
WHOLE = r"ssl:vm1:5091:privateKey=/k\:ey:certKey=/cert:caCert=/ca"


@define
class UnreachableNetwork:
    """A network in which attempts to connect never end."""

    clock: Clock = field(factory=Clock)
    attempts: list[str] = field(factory=list)
    cancelled: list[str] = field(factory=list)

    def endpoint(self, reactor: object, address: str) -> IStreamClientEndpoint:
        if address.startswith("bad"):
            raise ValueError("must begin with unix:PATH")
        return Endpoint(self, address)

    def pool(self, credentials: Credentials = FILES, *given: str) -> ControlPool:
        pool = ControlPool(self.clock, "test", credentials, given=given)
        pool.startService()
        return pool


@implementer(IStreamClientEndpoint)
@define
class Endpoint:
    network: UnreachableNetwork
    address: str

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        self.network.attempts.append(self.address)
        return Deferred(lambda _: self.network.cancelled.append(self.address))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> UnreachableNetwork:
    network = UnreachableNetwork()
    monkeypatch.setattr(module, "client_endpoint", network.endpoint)
    return network


def test_each_advertised_port_has_one_client(network: UnreachableNetwork) -> None:
    pool = network.pool()
    pool.update([ONE, TWO])
    first = pool.clients[ONE]
    pool.update([ONE])
    assert dict(pool.clients) == {ONE: first}
    assert network.attempts == [ONE, TWO]
    assert network.cancelled == [TWO]
    pool.disconnect_others([])
    assert not pool.clients
    assert network.cancelled == [TWO, ONE]


def test_configured_port_is_kept_and_has_one_client(
    network: UnreachableNetwork,
) -> None:
    pool = network.pool(FILES, WHOLE, ONE)
    assert pool.clients.keys() == {WHOLE, ONE}
    pool.update([TLS, ONE])
    pool.update([])
    assert sorted(network.attempts) == sorted([WHOLE, ONE])
    assert not network.cancelled


def test_own_credentials_are_added_to_an_advertised_tls_port(
    network: UnreachableNetwork,
) -> None:
    network.pool().update([TLS])
    assert network.attempts == [WHOLE]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (TLS, "TLS requires --control-key, --control-cert and --control-ca"),
        ("bad", "must begin with unix:PATH"),
    ],
)
def test_bad_address_is_reported_as_the_error_of_its_port(
    network: UnreachableNetwork, address: str, why: str
) -> None:
    pool = network.pool(Credentials())
    pool.update([ONE, address])
    errors = pool.connection_errors
    assert isinstance(errors[address], BadAddress)
    assert str(errors[address]) == why
    assert isinstance(errors[ONE], NotConnected)
    assert pool.usable == []


def test_preferred_port_is_used_first(network: UnreachableNetwork) -> None:
    pool = network.pool()
    pool.update([ONE, TWO])
    pool.prefer(TWO)
    pool.prefer("unix:/run/gone.sock")
    assert list(pool.clients) == [TWO, ONE]


def test_ports_beyond_the_maximum_are_tried_in_turn(network: UnreachableNetwork) -> None:
    pool = network.pool()
    advertised = [f"tcp:127.0.0.1:{number}" for number in range(1, 2 * MAX_PORTS + 11)]
    for _ in range(3):
        pool.update(advertised)
        assert len(pool.clients) == MAX_PORTS
    assert set(network.attempts) == set(advertised)


def test_stopped_pool_connects_to_no_port(network: UnreachableNetwork) -> None:
    pool = network.pool()
    pool.update([ONE])
    stopped: list[Any] = []
    pool.stopService().addCallback(stopped.append)
    pool.update([ONE, TWO])
    assert stopped == [None]
    assert not pool.clients
    assert network.attempts == network.cancelled == [ONE]
    assert not network.clock.getDelayedCalls()
