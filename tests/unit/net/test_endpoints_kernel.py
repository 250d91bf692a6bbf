"""Endpoint strings taken apart, and what the kernel is told of a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define
from twisted.internet.testing import StringTransport

from tracker.net.endpoints import keep_alive, split

# Endpoint strings.


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("tcp:5027", ("tcp", ["5027"], {})),
        ("tcp:5027:127.0.0.1", ("tcp", ["5027", "127.0.0.1"], {})),
        ("tcp:port=5027", ("tcp", [], {"port": "5027"})),
        (
            "udp:5027:interface=127.0.0.1",
            ("udp", ["5027"], {"interface": "127.0.0.1"}),
        ),
        (r"tcp:5027:interface=\:\:1", ("tcp", ["5027"], {"interface": "::1"})),
        (r"udp:5027:\:\:1", ("udp", ["5027", "::1"], {})),
        (
            "ssl:5027:privateKey=/k=1.pem:certKey=/c.pem",
            ("ssl", ["5027"], {"privateKey": "/k=1.pem", "certKey": "/c.pem"}),
        ),
        ("udp:", ("udp", [""], {})),
        ("udp", ("udp", [], {})),
        ("", ("", [], {})),
    ],
)
def test_an_endpoint_string_is_taken_apart(
    endpoint: str, parts: tuple[str, list[str], dict[str, str]]
) -> None:
    assert split(endpoint) == parts


# The kernel's own watch over a peer.

#: Seconds of silence, between probes, number of probes; milliseconds for sent bytes.
WATCH = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 60,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 15,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 4,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 120_000,
}


@define
class Plain:
    """A transport with a socket, as Twisted's have it."""

    socket: Any


@define
class Wrapping:
    """A transport around another, as that of TLS is."""

    transport: Any


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def unconnected(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A TCP socket that is connected to nothing."""
    try:
        made = socket.socket(request.param, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this machine has no such addresses")
    with made:
        yield made


def watch(handle: socket.socket) -> dict[tuple[int, int], int]:
    return {option: handle.getsockopt(*option) for option in WATCH}


@pytest.mark.parametrize("wrappings", [0, 1, 2])
def test_the_kernel_watches_a_peer_with_tls_or_without(
    unconnected: socket.socket, wrappings: int
) -> None:
    assert watch(unconnected) != WATCH
    transport: Any = Plain(unconnected)
    for _ in range(wrappings):
        transport = Wrapping(transport)
    keep_alive(transport)
    assert watch(unconnected) == WATCH


def test_a_socket_of_another_family_is_left_alone() -> None:
    first, second = socket.socketpair()
    with first, second:
        keep_alive(Plain(first))
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_socket_that_has_gone_is_nothing_to_raise_for(unconnected: socket.socket) -> None:
    unconnected.close()
    keep_alive(Plain(unconnected))


@pytest.mark.parametrize(
    "transport", [StringTransport(), Wrapping(StringTransport()), object(), Wrapping(None)]
)
def test_a_transport_without_a_socket_is_left_alone(transport: object) -> None:
    keep_alive(transport)
