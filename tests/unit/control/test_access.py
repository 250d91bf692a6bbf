"""Tests of the permissions file and of the identity of peers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, capturedLogs

from tracker.control.access import (
    MAX_FILE_BYTES,
    Peer,
    Permission,
    Permissions,
    Unidentified,
    identify_peer,
)

READ, OPERATE = Permission.READ, Permission.OPERATE


def certified(name: str) -> Peer:
    return Peer("certificate", name, fingerprint="00" * 32)


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes the permissions file with a new modification time."""
    file = tmp_path / "permissions"
    times = iter(range(1, 100))

    def write(content: str) -> Path:
        file.write_text(content)
        os.utime(file, (next(times),) * 2)
        return file

    return write


def test_every_certificate_may_read_without_a_permissions_file() -> None:
    assert Permissions(None).of(certified("anybody")) is READ
    assert Permissions(None).of(certified("*")) is READ


def test_only_listed_clients_have_a_permission(write: Callable[[str], Path]) -> None:
    permissions = Permissions(
        write("# of the control port\n\nadmin operate  # on duty\n\tgrafana\t read\r\n")
    )
    assert permissions.of(certified("admin")) is OPERATE
    assert permissions.of(certified("grafana")) is READ
    for stranger in ("Admin", "admin ", "admin operate", "", "*", "#", "on"):
        assert permissions.of(certified(stranger)) is None, stranger


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n"])
def test_empty_permissions_file_gives_no_permission(
    write: Callable[[str], Path], content: str
) -> None:
    assert Permissions(write(content)).of(certified("admin")) is None


def test_asterisk_applies_to_names_that_are_not_listed(write: Callable[[str], Path]) -> None:
    permissions = Permissions(write("* read\nadmin operate\n"))
    assert permissions.of(certified("admin")) is OPERATE
    assert permissions.of(certified("stranger")) is READ


def test_client_name_may_contain_spaces_and_signs(write: Callable[[str], Path]) -> None:
    permissions = Permissions(write("Jörg Müller operate\nhost#1 read\n"))
    assert permissions.of(certified("Jörg Müller")) is OPERATE
    assert permissions.of(certified("host#1")) is READ
    assert permissions.of(certified("Jörg")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("admin\n", "line 1: must be NAME PERMISSION, for example admin operate, not 'admin'"),
        ("# ok\nadmin root\n", "line 2: the permission must be read or operate, not 'root'"),
        ("admin Operate\n", "line 1: the permission must be read or operate"),
        (
            "admin operate read extra\n",
            "line 1: the permission must be read or operate, not 'extra'",
        ),
        ("a read\n\nb operate\na operate\n", "line 4: duplicate name a"),
        ("a read\x85b operate\n", "line 1: must be NAME PERMISSION"),
        ("a\x1b[2J read\n", "line 1: must be NAME PERMISSION"),
        ("x" * (MAX_FILE_BYTES + 1), "larger than 1048576 bytes"),
    ],
)
def test_malformed_line_is_reported_with_its_number(
    write: Callable[[str], Path], content: str, message: str
) -> None:
    file = write(content)
    with pytest.raises(ValueError, match=r".") as raised:
        Permissions(file)
    assert str(raised.value).startswith(f"{file}: {message}")
    assert raised.value.args[0].isprintable()


def test_permissions_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "permissions"
    file.write_bytes(b"admin read\n\xff read\n")
    with pytest.raises(ValueError, match="line 2: not UTF-8"):
        Permissions(file)


def test_missing_permissions_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Permissions(tmp_path / "permissions")


def test_changed_permissions_file_is_reloaded(write: Callable[[str], Path]) -> None:
    permissions = Permissions(write("admin read\n"))
    assert permissions.of(certified("admin")) is READ
    write("admin operate\n")
    assert permissions.of(certified("admin")) is OPERATE
    write("other operate\n")
    assert permissions.of(certified("admin")) is None


def test_replaced_permissions_file_with_the_same_time_is_reloaded(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    file = write("admin  operate\n")
    permissions = Permissions(file)
    other = tmp_path / "other"
    other.write_text("others operate\n")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.rename(file)
    assert permissions.of(certified("admin")) is None


def test_malformed_file_keeps_previous_permissions_and_logs_a_warning(
    write: Callable[[str], Path], logged: Sequence[LogEvent]
) -> None:
    permissions = Permissions(write("admin operate\n"))
    write("admin operate\nadmin\n")
    for _ in range(3):
        assert permissions.of(certified("admin")) is OPERATE
    (warning,) = logged
    assert warning["log_level"].name == "warn"
    assert "line 2: must be NAME PERMISSION" in warning["reason"]
    write("admin read\n")
    assert permissions.of(certified("admin")) is READ
    assert [event["log_level"].name for event in logged] == ["warn", "info"]


def test_removed_file_keeps_previous_permissions_and_logs_a_warning(
    write: Callable[[str], Path], logged: Sequence[LogEvent]
) -> None:
    file = write("admin operate\n")
    permissions = Permissions(file)
    file.unlink()
    for _ in range(3):
        assert permissions.of(certified("admin")) is OPERATE
        assert permissions.of(certified("stranger")) is None
    assert [event["log_level"].name for event in logged] == ["warn"]
    write("admin read\n")
    assert permissions.of(certified("admin")) is READ


def test_unchanged_permissions_file_is_not_reloaded(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    permissions = Permissions(write("admin operate\n"))
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    assert permissions.of(certified("admin")) is OPERATE


LOCAL = [
    Peer("unix", "alice", pid=4711, uid=1000, gid=1000),
    Peer("tcp", "127.0.0.1:40000"),
    Peer("tcp", "[::1]:40000"),
]


@pytest.mark.parametrize("peer", LOCAL, ids=str)
def test_local_peer_may_operate_by_default(peer: Peer, write: Callable[[str], Path]) -> None:
    assert Permissions(None).of(peer) is OPERATE
    assert Permissions(None, local=READ).of(peer) is READ
    # The file applies to certificates only, not to local peers.
    assert Permissions(write("* read\nalice read\n")).of(peer) is OPERATE


@pytest.mark.parametrize("name", ["192.0.2.1:40000", "[2001:db8::1]:40000", "localhost:1", ""])
def test_remote_peer_on_plain_tcp_has_no_permission(name: str) -> None:
    assert Permissions(None).of(Peer("tcp", name)) is None


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (certified("admin"), "certificate admin (0000000000000000)"),
        (certified("a\nb"), r"certificate a\nb (0000000000000000)"),
        (certified("a\x1b[2J"), r"certificate a\x1b[2J (0000000000000000)"),
        (LOCAL[0], "unix user alice, pid 4711"),
        (LOCAL[1], "tcp 127.0.0.1:40000"),
    ],
)
def test_peer_is_shown_as_printable_text(peer: Peer, text: str) -> None:
    assert str(peer) == text


class PlainTransport(StringTransport):
    """A transport without a socket."""

    def getHandle(self) -> None:
        return None


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (IPv4Address("TCP", "127.0.0.1", 40_000), "127.0.0.1:40000"),
        (IPv6Address("TCP", "::1", 40_000), "[::1]:40000"),
    ],
)
def test_peer_on_plain_tcp_is_named_by_its_address(address: Any, name: str) -> None:
    assert identify_peer(PlainTransport(peerAddress=address)) == Peer("tcp", name)


def test_connection_of_an_unknown_kind_is_unidentified() -> None:
    with pytest.raises(Unidentified, match="UNIXAddress"):
        identify_peer(PlainTransport(peerAddress=UNIXAddress(None)))
