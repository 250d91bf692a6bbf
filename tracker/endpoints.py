"""Addresses and endpoint strings, as people write and read them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

_COLON: Final = re.compile(r"(?<!\\):")

#: How soon the kernel notices that a peer has vanished: seconds of silence before the
#: first probe, between probes, and number of probes …
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
    # … and milliseconds for which sent bytes may stay unacknowledged.
    (socket.TCP_USER_TIMEOUT, 120_000),
)


def readable(address: object) -> str:
    """An ``IAddress`` for a log: ``192.0.2.1:5027``, ``[2001:db8::1]:5027`` or a path."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = getattr(address, "name", None)
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return name or type(address).__name__


def with_default(endpoint: str, kinds: Mapping[str, int], name: str, value: object) -> str:
    """An endpoint string; if it is of one of these kinds, and without argument ``name``, with that.

    :param kinds: kind → how many positional arguments there are if that one is among them.
    """
    kind, positional, named = split(endpoint)
    if kind not in kinds or len(positional) >= kinds[kind] or name in named:
        return endpoint
    return f"{endpoint}:{name}={value}"


def split(endpoint: str) -> tuple[str, list[str], dict[str, str]]:
    """An endpoint string's kind, positional and named arguments."""
    kind, *arguments = (part.replace("\\:", ":") for part in _COLON.split(endpoint))
    positional = [argument for argument in arguments if "=" not in argument]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    return kind, positional, named


def keep_alive(transport: Any) -> None:
    """Have the kernel notice a vanished peer on a TCP connection, with TLS or without."""
    while (inner := getattr(transport, "transport", None)) is not None:
        transport = inner
    handle = getattr(transport, "socket", None)
    if handle is None or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # it has gone already
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
