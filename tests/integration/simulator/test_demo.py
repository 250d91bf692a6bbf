"""The listening sockets of the demo."""

from __future__ import annotations

import socket

from tracker.simulator.demo import listening_socket


def test_demo_uses_another_port_if_its_port_is_in_use() -> None:
    with listening_socket() as first:
        port = first.getsockname()[1]
        with listening_socket(port) as second:
            assert second.getsockname()[1] not in (0, port)


def test_demo_listens_on_the_given_free_port() -> None:
    with listening_socket() as probe:
        port = probe.getsockname()[1]
    with listening_socket(port) as listening:
        assert listening.getsockname() == ("127.0.0.1", port)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
