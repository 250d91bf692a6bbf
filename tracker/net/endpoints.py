"""Endpoint strings, addresses in log lines, and TCP keep-alive."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

_COLON: Final = re.compile(r"(?<!\\):")

#: Kinds of endpoints that have a host and a port.
_ADDRESSED: Final = ("tcp", "udp", "ssl")
#: All kinds of endpoints: none of these is the name of a host.
_KINDS: Final = (*_ADDRESSED, "tcp6", "tls", "unix", "fd", "systemd", "stdio", "haproxy")
#: An address with or without a host, and the arguments after it.
_ADDRESS: Final = re.compile(
    r"(?:(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?![0-9]+:)(?P<host>[^:=\[\]\\/\s]+)):)?"
    r"(?P<port>[0-9]+)(?P<rest>(?::.*)?)"
)

#: TCP options by which the kernel detects a peer that has vanished; see tcp(7).
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 60),  # seconds
    (socket.TCP_KEEPINTVL, 15),  # seconds
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 120_000),  # milliseconds
)


def readable(address: object) -> str:
    """Return an ``IAddress`` as text: ``192.0.2.1:5027``, ``[2001:db8::1]:5027`` or a path."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = getattr(address, "name", None)
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return name or type(address).__name__


def listening_endpoint(text: str) -> str:
    r"""Return the endpoint string of an address to listen on.

    ``5027`` is ``tcp:5027``; ``127.0.0.1:5027`` and ``tcp:127.0.0.1:5027`` are
    ``tcp:5027:interface=127.0.0.1``; ``[::1]:5027`` is ``tcp:5027:interface=\:\:1``. ``udp:`` and
    ``ssl:`` take an address in the same way. ``localhost`` is 127.0.0.1. A path that begins with
    ``/`` is ``unix:`` of it. Other endpoint strings are returned as they are.

    :raises ValueError: if the text is neither; the message is one line.
    """
    if text.startswith("haproxy:"):
        return f"haproxy:{listening_endpoint(text.removeprefix('haproxy:'))}"
    parts = _address(text, "5027, 127.0.0.1:5027, [::1]:5027 or unix:PATH")
    if parts is None:
        return _with_kind(text)
    kind, host, port, rest = parts
    if not host:
        return f"{kind}:{port}{rest}"
    interface = ip_address("host", "127.0.0.1" if host == "localhost" else host)
    return f"{kind}:{port}{rest}:interface={_escaped(interface)}"


def connecting_endpoint(text: str) -> str:
    r"""Return the endpoint string of an address to connect to.

    ``localhost:5027`` is ``tcp:localhost:5027``, and ``[::1]:5027`` is ``tcp:\:\:1:5027``; the host
    of ``tcp:``, ``udp:`` or ``ssl:`` may have brackets, too. A path that begins with ``/`` is
    ``unix:`` of it. Other endpoint strings are returned as they are.

    :raises ValueError: if the text is neither, or has no host; the message is one line.
    """
    example = "localhost:5027, [::1]:5027 or unix:PATH"
    parts = _address(text, example)
    if parts is None:
        return _with_kind(text)
    kind, host, port, rest = parts
    if not host:
        raise ValueError(f"the host is missing; write it like {example}")
    return f"{kind}:{_escaped(host)}:{port}{rest}"


def _address(text: str, example: str) -> tuple[str, str, str, str] | None:
    """Return kind, host, port and the arguments after them; None if the text has no address."""
    kind, colon, after = text.partition(":")
    if not (colon and kind in _ADDRESSED):
        kind, after = "tcp", text
    found = _ADDRESS.fullmatch(after)
    if found is not None and found["host"] not in _KINDS:
        return kind, found["six"] or found["host"] or "", found["port"], found["rest"]
    if not ((colon and text.partition(":")[0] in _KINDS) or text.startswith("/")):
        raise ValueError(f"must be like {example}, not {text!r}")
    return None


def _with_kind(text: str) -> str:
    return f"unix:{_escaped(text)}" if text.startswith("/") else text


def _escaped(text: str) -> str:
    return text.replace(":", "\\:")


def with_default(endpoint: str, kinds: Mapping[str, int], name: str, value: object) -> str:
    """Return an endpoint string, with an argument added if its kind takes it and it is missing.

    :param kinds: kind of endpoint → number of positional arguments up to and including this one.
    :param name: name of the argument.
    """
    kind, positional, named = split(endpoint)
    if kind not in kinds or len(positional) >= kinds[kind] or name in named:
        return endpoint
    return f"{endpoint}:{name}={value}"


def split(endpoint: str) -> tuple[str, list[str], dict[str, str]]:
    """Return the kind, the positional and the named arguments of an endpoint string."""
    kind, positional, pairs = _parts(endpoint)
    return kind, positional, dict(pairs)


def _parts(endpoint: str) -> tuple[str, list[str], list[tuple[str, str]]]:
    kind, *arguments = (part.replace("\\:", ":") for part in _COLON.split(endpoint))
    positional = [argument for argument in arguments if "=" not in argument]
    pairs = [argument.partition("=")[::2] for argument in arguments if "=" in argument]
    return kind, positional, pairs


def named_arguments(endpoint: str, names: Sequence[str]) -> dict[str, str]:
    """Return name → value of all arguments of an endpoint string.

    :param names: names of the positional arguments, in their order.
    :raises ValueError: if there are too many arguments, or one is given twice; the
        message is one line.
    """
    _, positional, pairs = _parts(endpoint)
    if len(positional) > len(names):
        raise ValueError(r"too many arguments (write a colon within an argument as \:)")
    given = dict(zip(names, positional, strict=False))
    for name, value in pairs:
        if name in given:
            raise ValueError(f"the {name} is given twice")
        given[name] = value
    return given


def refuse_unknown_arguments(given: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise an error if arguments are left.

    :param given: arguments that are not known.
    :param known: names of the known arguments, for the error.
    :raises ValueError: if ``given`` is not empty; the message is one line.
    """
    if given:
        raise ValueError(f"unknown argument {min(given)!r}; known are {', '.join(known)}")


def number(name: str, text: str) -> int:
    """Return a number from 0 to 65,535.

    :param name: name of the argument, for the error.
    :raises ValueError: if ``text`` is not such a number; the message is one line.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise ValueError(f"the {name} must be a number up to 65535, not {text!r}")
    return int(text)


def ip_address(name: str, text: str) -> str:
    """Return an IP address, or the empty string.

    :param name: name of the argument, for the error.
    :raises ValueError: if ``text`` is neither; the message is one line.
    """
    # Not at the top: completion uses this module, and has no time for an import of Twisted.
    from twisted.internet.abstract import isIPAddress, isIPv6Address

    if text and not (isIPAddress(text) or isIPv6Address(text)):
        raise ValueError(f"the {name} must be an IP address, not {text!r}")
    return text


def keep_alive(transport: Any) -> None:
    """Set TCP options so that the kernel detects a vanished peer, with TLS or without."""
    while (inner := getattr(transport, "transport", None)) is not None:
        transport = inner
    handle = getattr(transport, "socket", None)
    if handle is None or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # the socket is closed already
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
