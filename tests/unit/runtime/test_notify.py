"""Notifications for systemd over a real Unix datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracker.runtime.notify import ALIVE, READY, Notifier, status


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Yield the value of NOTIFY_SOCKET, and the socket that it names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        if request.param == "path":
            name = str(tmp_path / "notify")
            listening.bind(name)
        else:
            listening.bind("")  # the kernel chooses a free name
            name = "@" + listening.getsockname()[1:].decode()
        yield name, listening


def test_notification_is_one_datagram_of_lines(systemd: tuple[str, socket.socket]) -> None:
    name, listening = systemd
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    assert notifier is not None
    assert notifier.send(READY, status("ready"))
    assert notifier.send(ALIVE)
    assert listening.recv(1000) == b"READY=1\nSTATUS=ready"
    assert listening.recv(1000) == b"WATCHDOG=1"


def test_notifier_does_not_block_on_a_full_queue(systemd: tuple[str, socket.socket]) -> None:
    name, listening = systemd
    notifier = Notifier(name)
    sent = 0
    while notifier.send(ALIVE):
        sent += 1
        assert sent < 10_000
    assert sent
    assert listening.recv(1000) == b"WATCHDOG=1"
    assert notifier.send(ALIVE)


def test_missing_systemd_socket_is_ignored(tmp_path: Path) -> None:
    assert not Notifier(str(tmp_path / "missing")).send(READY)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_notifier_requires_a_unix_socket(environ: dict[str, str]) -> None:
    assert Notifier.from_environment(environ) is None


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_of_another_process_is_ignored(
    variables: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/notify", **variables})
    assert notifier is not None
    assert notifier.watchdog == seconds


def test_status_in_a_notification_is_one_short_line() -> None:
    assert status("not ready:\n  Redis\r\nREADY=1") == "STATUS=not ready: Redis READY=1"
    assert len(status("x" * 1000)) < 500
