"""Addresses and endpoint strings, as people write and read them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address

#: Bytes of the longest path that a Unix socket can have (unix(7): sun_path, less its final
#: zero).
MAX_SOCKET_PATH: Final = 107

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
    kind, positional, pairs = _parts(endpoint)
    return kind, positional, dict(pairs)


def _parts(endpoint: str) -> tuple[str, list[str], list[tuple[str, str]]]:
    kind, *arguments = (part.replace("\\:", ":") for part in _COLON.split(endpoint))
    positional = [argument for argument in arguments if "=" not in argument]
    pairs = [argument.partition("=")[::2] for argument in arguments if "=" in argument]
    return kind, positional, pairs


def named(endpoint: str, names: Sequence[str]) -> dict[str, str]:
    """The arguments of an endpoint string by name, whether they were given so or by place.

    :param names: those that may be given by their place, in that order.
    :raises ValueError: when there are too many, or one is given twice; in one line.
    """
    _, positional, pairs = _parts(endpoint)
    if len(positional) > len(names):
        raise ValueError(r"too many arguments (a colon in one is written \:)")
    given = dict(zip(names, positional, strict=False))
    for name, value in pairs:
        if name in given:
            raise ValueError(f"the {name} is given twice")
        given[name] = value
    return given


def no_more(given: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse the arguments that nobody has taken out.

    :param known: those that there are.
    """
    if given:
        raise ValueError(f"unknown argument {min(given)!r}; there are {', '.join(known)}")


def number(name: str, text: str) -> int:
    """A number as ports are."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise ValueError(f"the {name} must be a number up to 65535, not {text!r}")
    return int(text)


def ip_address(name: str, text: str) -> str:
    """An IP address, or nothing."""
    if text and not (isIPAddress(text) or isIPv6Address(text)):
        raise ValueError(f"the {name} must be an IP address, not {text!r}")
    return text


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
