"""TCP keep-alive options."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define
from twisted.internet.testing import StringTransport

from tracker.net.endpoints import keep_alive

OPTIONS = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 15,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 4,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 120_000,
}


@define
class Plain:
    """A transport with a socket, like Twisted's for TCP."""

    socket: Any


@define
class Wrapping:
    """A transport around another one, like Twisted's for TLS."""

    transport: Any


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def unconnected(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Yield an unconnected TCP socket."""
    try:
        unconnected = socket.socket(request.param, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this machine has no such addresses")
    with unconnected:
        yield unconnected


def options_of(handle: socket.socket) -> dict[tuple[int, int], int]:
    return {option: handle.getsockopt(*option) for option in OPTIONS}


@pytest.mark.parametrize("wrappings", [0, 1, 2])
def test_keep_alive_sets_tcp_options_with_and_without_tls(
    unconnected: socket.socket, wrappings: int
) -> None:
    assert options_of(unconnected) != OPTIONS
    transport: Any = Plain(unconnected)
    for _ in range(wrappings):
        transport = Wrapping(transport)
    keep_alive(transport)
    assert options_of(unconnected) == OPTIONS


def test_keep_alive_ignores_other_socket_families() -> None:
    first, second = socket.socketpair()
    with first, second:
        keep_alive(Plain(first))
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_keep_alive_ignores_a_closed_socket(unconnected: socket.socket) -> None:
    unconnected.close()
    keep_alive(Plain(unconnected))


@pytest.mark.parametrize(
    "transport", [StringTransport(), Wrapping(StringTransport()), object(), Wrapping(None)]
)
def test_keep_alive_ignores_a_transport_without_a_socket(transport: object) -> None:
    keep_alive(transport)
