"""Tests of a control port on a Unix socket: access, and its socket file."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from tests.integration.control.echo import Server, ask
from tests.waiting import until, wait_for
from tracker.control.access import Permission, Permissions
from tracker.control.addresses import client_endpoint, server_endpoint
from tracker.control.listening import CHECK_INTERVAL, ControlListener, Place


def socket_of(path: Path) -> Any:
    from twisted.internet import reactor

    return client_endpoint(reactor, f"unix:{path}")


@ensureDeferred
async def test_user_of_a_unix_socket_is_identified(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    await server.listen(f"unix:{path}")
    assert await ask(socket_of(path)) == b"hello"
    peer = server.protocols[0].peer
    assert (peer.kind, peer.pid, peer.uid, peer.gid) == (
        *("unix", os.getpid()),
        *(os.geteuid(), os.getegid()),
    )
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert str(peer) == f"unix user {user}, pid {os.getpid()}"
    assert Permissions(None).of(peer) is Permission.OPERATE


@ensureDeferred
async def test_user_without_a_name_is_identified_by_number(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    path = tmp_path / "control.sock"
    await server.listen(f"unix:{path}")
    await ask(socket_of(path))
    assert server.protocols[0].peer.name == str(os.geteuid())


@pytest.mark.parametrize(
    ("rest", "mode"), [("", 0o660), (":mode=0600", 0o600), (":mode=666", 0o666)]
)
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@ensureDeferred
async def test_mode_of_a_socket_does_not_depend_on_the_umask(
    server: Server, tmp_path: Path, rest: str, mode: int, umask: int
) -> None:
    former = os.umask(umask)
    try:
        await server.listen(f"unix:{tmp_path}/control.sock{rest}")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "control.sock.lock").stat().st_mode) == 0o600


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="tracker-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def connect_as(user: pwd.struct_passwd, path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    own = os.geteuid(), os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    finally:
        os.seteuid(own[0])
        os.setegid(own[1])
        os.setgroups(own[2])
    return client


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
@ensureDeferred
async def test_mode_decides_whether_another_user_can_connect(
    server: Server, open_folder: Path
) -> None:
    other = pwd.getpwnam("nobody")
    path = open_folder / "control.sock"
    port = await server.listen(f"unix:{path}")
    with pytest.raises(PermissionError):
        connect_as(other, path)
    await port.stopListening()
    await server.listen(f"unix:{path}:mode=0666")
    with connect_as(other, path):
        await until(lambda: server.protocols, "connected")
        peer = server.protocols[0].peer
        assert str(peer) == f"unix user {other.pw_name}, pid {os.getpid()}"
        assert (peer.uid, peer.gid) == (other.pw_uid, other.pw_gid)


@ensureDeferred
async def test_socket_is_removed_when_its_port_is_closed(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for _ in range(2):
        port = await server.listen(f"unix:{path}")
        assert path.is_socket()
        await port.stopListening()
        assert not path.exists()
    with pytest.raises(ConnectError):
        await ask(socket_of(path))


@ensureDeferred
async def test_socket_without_a_listener_is_replaced(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with pytest.raises(ConnectError):
        await ask(socket_of(path))
    await server.listen(f"unix:{path}")
    assert await ask(socket_of(path)) == b"hello"


Child = Callable[[str], subprocess.Popen[str]]

CHILD = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from tracker.control.addresses import server_endpoint
server_endpoint(reactor, sys.argv[1]).listen(Factory.forProtocol(Protocol)).addErrback(
    lambda failure: (print(failure.value), reactor.callWhenRunning(reactor.stop)))
reactor.run()
"""


@pytest.fixture
def child() -> Iterator[Child]:
    """Return a function that starts another process that listens."""
    processes: list[subprocess.Popen[str]] = []

    def start(description: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", CHILD, description], stdout=subprocess.PIPE, text=True
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=20)


@ensureDeferred
async def test_socket_of_a_killed_process_is_replaced(
    server: Server, tmp_path: Path, child: Child
) -> None:
    path = tmp_path / "control.sock"
    process = child(f"unix:{path}")
    wait_for(path.is_socket, "the other process listens")
    for _ in range(2):
        with pytest.raises(CannotListenError) as raised:
            await server.listen(f"unix:{path}")
        assert raised.value.socketError == "another process listens on this socket"
        assert path.is_socket()
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert path.is_socket()
    await server.listen(f"unix:{path}")
    assert await ask(socket_of(path)) == b"hello"


def test_one_of_many_processes_replaces_a_dead_socket(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    processes = [child(f"unix:{path}") for _ in range(5)]
    wait_for(lambda: sum(p.poll() is not None for p in processes) == 4, "four have given up")
    for process in processes:
        if process.poll() is not None:
            assert process.stdout is not None
            assert "another process listens on this socket" in process.stdout.read()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("busy", [False, True])
@ensureDeferred
async def test_socket_of_another_program_is_not_replaced(
    server: Server, tmp_path: Path, busy: bool
) -> None:
    path = tmp_path / "control.sock"
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(2 if busy else 0)]
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(CannotListenError) as raised:
            await server.listen(f"unix:{path}")
        assert raised.value.socketError == "another process listens on this socket"
        assert path.is_socket()
    for client in waiting:
        client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
@ensureDeferred
async def test_file_that_is_not_a_socket_is_not_replaced(
    server: Server, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "control.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(CannotListenError) as raised:
        await server.listen(f"unix:{path}")
    assert raised.value.socketError == f"{path} exists and is not a socket; remove it"
    assert os.path.lexists(path)


@ensureDeferred
async def test_port_whose_file_was_removed_can_be_closed(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    port = await server.listen(f"unix:{path}")
    path.unlink()
    await port.stopListening()
    await server.listen(f"unix:{path}")
    assert await ask(socket_of(path)) == b"hello"


@ensureDeferred
async def test_closing_a_port_does_not_remove_another_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    port = await server.listen(f"unix:{path}")
    path.rename(tmp_path / "moved")  # otherwise the next file could get the same inode number
    path.write_text("precious")
    await port.stopListening()
    assert path.read_text() == "precious"


@ensureDeferred
async def test_removed_socket_of_a_control_port_is_created_again(tmp_path: Path) -> None:
    from twisted.internet import reactor

    folder = tmp_path / "run"
    address = f"unix:{folder}/control.sock"

    def find() -> Place:
        folder.mkdir(exist_ok=True)
        return Place("control port", address, server_endpoint(reactor, address))

    clock = Clock()
    accepted: list[Protocol] = []

    def build() -> Protocol:
        accepted.append(Protocol())
        return accepted[-1]

    factory = Factory.forProtocol(build)
    listener = ControlListener(clock, factory, find, None)
    listener.startService()
    try:
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(f"{folder}/control.sock")
            await until(lambda: accepted, "the connection is accepted")
            shutil.rmtree(folder)
            clock.advance(CHECK_INTERVAL)
            await until((folder / "control.sock").is_socket, "the socket is back")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{folder}/control.sock")
            connected.setblocking(False)
            with pytest.raises(BlockingIOError):  # the earlier connection stays open
                connected.recv(1)
        await until(lambda: listener.address == address, "the address is known")
    finally:
        await listener.stopService()
    assert not (folder / "control.sock").exists()
