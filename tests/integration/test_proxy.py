"""The proxy of the tests, and the effect of its methods on connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from attrs import frozen

from tests.proxy import Pace, Proxy


@frozen
class Path:
    """A connection through a proxy, with both its ends."""

    proxy: Proxy
    listening: socket.socket

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Make a connection; return the client's end and the server's end."""
        near = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10)
        far, _ = self.listening.accept()
        far.settimeout(10)
        near.sendall(b".")
        assert far.recv(1) == b"."  # the connection is forwarded now
        return near, far


@pytest.fixture
def path() -> Iterator[Path]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.settimeout(10)
        with closing(Proxy(listening.getsockname()[1])) as proxy:
            yield Path(proxy, listening)


def echoes(near: socket.socket, far: socket.socket) -> bool:
    """Return whether bytes pass in both directions."""
    near.sendall(b"there")
    assert far.recv(10) == b"there"
    far.sendall(b"back")
    return near.recv(10) == b"back"


def is_silent(one: socket.socket) -> bool:
    """Return whether nothing arrives for a while, not even the end."""
    one.settimeout(0.2)
    try:
        one.recv(1)
    except TimeoutError:
        return True
    finally:
        one.settimeout(10)
    return False


def test_proxy_forwards_bytes_and_the_end_in_both_directions(path: Path) -> None:
    near, far = path.connect()
    assert echoes(near, far)
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    far.sendall(b"still")
    assert near.recv(10) == b"still"
    far.close()
    assert near.recv(1) == b""
    assert path.proxy.accepted == 1


def test_stalled_proxy_holds_all_bytes_until_it_is_healed(path: Path) -> None:
    near, far = path.connect()
    path.proxy.stall()
    near.sendall(b"late")
    near.close()
    assert is_silent(far)
    path.proxy.heal()
    assert far.recv(10) == b"late"
    assert far.recv(10) == b""


def test_connections_made_before_a_stall_may_stay_unforwarded(path: Path) -> None:
    near, far = path.connect()
    path.proxy.stall(deaf=True)
    path.proxy.heal(forward_old=False)
    assert echoes(*path.connect())
    near.sendall(b"lost")
    assert is_silent(far)
    assert is_silent(near)


def test_proxy_that_cuts_a_connection_resets_both_ends(path: Path) -> None:
    near, far = path.connect()
    assert path.proxy.cut() == 1
    for one in (near, far):
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    assert echoes(*path.connect())


@pytest.mark.parametrize("up", [True, False])
def test_half_closed_connection_ends_in_one_direction_only(path: Path, up: bool) -> None:
    near, far = path.connect()
    ends = {True: (near, far), False: (far, near)}
    assert path.proxy.half_close(up) == 1
    source, sink = ends[up]
    assert sink.recv(1) == b""
    sink.sendall(b"open")
    assert source.recv(10) == b"open"


def test_refused_connections_do_not_reach_the_server_until_healed(path: Path) -> None:
    path.connect()
    path.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", path.proxy.port), timeout=10)
    path.proxy.heal()
    assert echoes(*path.connect())


def test_proxy_with_a_pace_forwards_small_pieces(path: Path) -> None:
    near, far = path.connect()
    path.proxy.set_pace(Pace(3, 0.02))
    near.sendall(b"0123456789")
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < 10:
        pieces.append(far.recv(10))
    assert b"".join(pieces) == b"0123456789"
    assert len(pieces) > 1


def test_reset_or_missing_server_resets_the_client(path: Path) -> None:
    near, far = path.connect()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    path.listening.close()
    with pytest.raises(ConnectionResetError):
        socket.create_connection(("127.0.0.1", path.proxy.port), timeout=10).recv(1)


def test_proxy_replies_in_place_of_the_server(path: Path) -> None:
    path.proxy.reply(b"HTTP/1.1 503 No\r\n\r\n")
    near = socket.create_connection(("127.0.0.1", path.proxy.port), timeout=10)
    near.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert near.recv(100).startswith(b"HTTP/1.1 503")


def test_proxy_changes_a_reply_of_the_server() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        changing = Proxy(listening.getsockname()[1], change=bytes.upper, delay=0.01)
        with closing(changing) as proxy:
            near, far = Path(proxy, listening).connect()
            near.sendall(b"up")
            assert far.recv(10) == b"up"
            far.sendall(b"down")
            assert near.recv(10) == b"DOWN"


def test_closed_proxy_ends_all_connections() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        proxy = Proxy(listening.getsockname()[1])
        near, _ = Path(proxy, listening).connect()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        with pytest.raises(ConnectionRefusedError):
            Path(proxy, listening).connect()
