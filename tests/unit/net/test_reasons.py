"""Reasons of failed connections and listeners."""

from __future__ import annotations

import errno
import socket

import pytest
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionRefusedError,  # noqa: A004
    getConnectError,
)

from tracker.net.reasons import connect_error, listen_error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (getConnectError(OSError(errno.ECONNREFUSED, "refused")), "connection refused"),
        (getConnectError(socket.gaierror(-2, "no such name")), "no such name"),
        (ConnectionRefusedError("no code"), "no code"),
        (ConnectError(string="bad certificate"), "bad certificate"),
    ],
    ids=["code of the system", "code of a lookup", "text as code", "without a code"],
)
def test_connect_error_is_described_for_any_code(error: ConnectError, text: str) -> None:
    assert text in connect_error(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EADDRINUSE, "In Use"),
         "in use. Stop the process that uses it, or choose another port."),
        (OSError(errno.EACCES, "Permission denied"), "permission denied"),
        ("another process listens on this socket", "another process listens on this socket"),
    ],
)  # fmt: skip
def test_listen_error_is_described_without_its_number(error: object, text: str) -> None:
    assert listen_error(CannotListenError("", 5027, error)) == text


def test_listen_error_of_a_privileged_port_says_what_to_do() -> None:
    denied = OSError(errno.EACCES, "Permission denied")
    remedy = "Choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE."
    assert listen_error(CannotListenError("", 80, denied)) == f"permission denied. {remedy}"
    # The path of a Unix socket stands where the port does.
    assert listen_error(CannotListenError("", "/run/x.sock", denied)) == "permission denied"
