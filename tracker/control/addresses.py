"""Addresses at which a control port listens, and to which its clients connect.

Peers are identified by their certificate over TLS and by the user of their process on a Unix
socket; plain TCP accepts only peers on this machine.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    quoteStringArgument,
    wrapClientTLS,
)
from twisted.internet.interfaces import IReactorTCP, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.ssl import optionsForClientTLS

from tracker.net import endpoints
from tracker.net.certificates import trust_root
from tracker.net.endpoints import (
    connecting_endpoint,
    listening_endpoint,
    named_arguments,
    number,
    refuse_unknown_arguments,
)
from tracker.net.socketpaths import MAX_SOCKET_PATH
from tracker.net.tls import TLSEndpoint, key_pair, server_options
from tracker.net.unixsocket import UnixEndpoint
from tracker.reactor import Reactor

#: Seconds within which a client has to connect.
CONNECT_TIMEOUT: Final = 10.0

DEFAULT_MODE: Final = "0660"

_LOOPBACK: Final = "127.0.0.1"
_MODE: Final = re.compile(r"0?[0-7]{3}")
_BACKLOG: Final = 50

# Arguments of each kind of address, positional ones first.
_SERVER: Final = {
    "unix": ("path", "mode"),
    "ssl": ("port", "privateKey", "certKey", "clientCA", "extraCertChain", "interface"),
    "tcp": ("port", "plaintext", "interface"),
}
_EXAMPLES: Final = ("unix:PATH", "ssl:PORT:…", "tcp:PORT:plaintext=1")
_CLIENT_FILES: Final = ("privateKey", "certKey", "caCert")
_CLIENT: Final = {
    "unix": ("path",),
    "ssl": ("host", "port", *_CLIENT_FILES, "name"),
    "tcp": ("host", "port"),
}


def server_endpoint(reactor: IReactorTCP, description: str) -> IStreamServerEndpoint:
    r"""Return the endpoint to listen on.

    :param description: one of

        - ``unix:PATH[:mode=0660]``,
        - ``ssl:PORT:privateKey=FILE:certKey=FILE:clientCA=FILE[:extraCertChain=FILE]
          [:interface=ADDRESS]``: TLS 1.2 and later, for clients with a certificate of
          that authority, on loopback unless another interface is given,
        - ``tcp:PORT:plaintext=1[:interface=127.0.0.1]`` (or ``\:\:1``).
    :raises ValueError: if the description is not valid; the text is one line.
    """
    kind, given = _read(listening_endpoint(description), _SERVER, _EXAMPLES)
    if kind == "unix":
        path = _socket_path(given)
        mode = given.pop("mode", DEFAULT_MODE)
        if not _MODE.fullmatch(mode):
            raise ValueError(f"the mode must be octal like {DEFAULT_MODE}, not {mode!r}")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent}: no such directory; create it first")
        return UnixEndpoint(cast(Reactor, reactor), path, int(mode, 8))
    port = number("port", given.pop("port", ""))
    interface = endpoints.ip_address("interface", given.pop("interface", "")) or _LOOPBACK
    tcp = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    below: IStreamServerEndpoint = tcp(reactor, port, _BACKLOG, interface)
    if kind == "tcp":
        if given.pop("plaintext", "") != "1":
            raise ValueError("tcp: is not encrypted; use ssl: or unix:, or add plaintext=1")
        if not is_loopback(interface):
            raise ValueError(f"tcp: is for this machine only, not for {interface}; use ssl:")
        return below
    key, certificate = _file(given, "privateKey"), _file(given, "certKey")
    authority = _file(given, "clientCA")
    chain = _file(given, "extraCertChain") if "extraCertChain" in given else None
    with _reporting_file_errors():
        return TLSEndpoint(below, server_options(key, certificate, chain, authority))


def client_endpoint(reactor: IReactorTCP, description: str) -> IStreamClientEndpoint:
    """Return the endpoint to connect to.

    Over TLS, the endpoint connects before the server's certificate is checked; a protocol that
    depends on the check must wait for ``IHandshakeListener.handshakeCompleted``. Bytes that it
    writes before that are not sent to a server whose certificate is refused.

    :param description: one of

        - ``unix:PATH``,
        - ``ssl:HOST:PORT:privateKey=FILE:certKey=FILE:caCert=FILE[:name=SERVERNAME]``:
          the server's certificate must be signed by that authority, and be valid for
          that name or address (default: HOST),
        - ``tcp:HOST:PORT``, where HOST is this machine.
    :raises ValueError: if the description is not valid; the text is one line.
    """
    kind, given = _client(description)
    if kind == "unix":
        path = str(_socket_path(given))
        unix: IStreamClientEndpoint = UNIXClientEndpoint(reactor, path, CONNECT_TIMEOUT)
        return unix
    host, port = given.pop("host"), number("port", given.pop("port"))
    if kind == "tcp":
        host = _LOOPBACK if host == "localhost" else host
        tcp = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        plain: IStreamClientEndpoint = tcp(reactor, host, port, CONNECT_TIMEOUT)
        return plain
    key, certificate = _file(given, "privateKey"), _file(given, "certKey")
    authority = _file(given, "caCert")
    name = given.pop("name", host)
    with _reporting_file_errors():
        pair, trusted = key_pair(key, certificate), trust_root(authority)
    try:
        options = optionsForClientTLS(name, trusted, extraCertificateOptions=pair)
    except UnicodeError:
        raise ValueError(f"the name must be a host name or an address, not {name!r}") from None
    below = HostnameEndpoint(reactor, host, port, CONNECT_TIMEOUT)
    encrypted: IStreamClientEndpoint = wrapClientTLS(options, below)
    return encrypted


def check_client_address(description: str) -> None:
    """Raise an error if an address to connect to is not valid. No file is read.

    :param description: see :func:`client_endpoint`.
    :raises ValueError: in that case; the text is one line.
    """
    kind, given = _client(description)
    if kind == "unix":
        _socket_path(given)
    elif kind == "ssl":
        for name in _CLIENT_FILES:
            _file(given, name)


def _client(description: str) -> tuple[str, dict[str, str]]:
    """Return the kind and the arguments of an address to connect to, with a usable host and port.

    :raises ValueError: if the address is not valid; the text is one line.
    """
    described = connecting_endpoint(description)
    kind, given = _read(described, _CLIENT, ("unix:PATH", "ssl:HOST:PORT:…", "tcp:HOST:PORT"))
    if kind == "unix":
        return kind, given
    host = given.get("host", "")
    if not host:
        raise ValueError(f"the host is missing, for example {kind}:localhost:PORT")
    if number("port", given.get("port", "")) == 0:
        raise ValueError("the port must not be 0")
    if kind == "tcp" and host != "localhost" and not is_loopback(host):
        raise ValueError(f"tcp: is for this machine only, not for {host}; use ssl:")
    return kind, given


def unix_address(path: Path) -> str:
    """Return the address of a Unix socket."""
    return f"unix:{quoteStringArgument(os.fspath(path))}"


def is_loopback(host: str) -> bool:
    """Return True if the text is a loopback IP address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _read(
    description: str, kinds: dict[str, tuple[str, ...]], examples: tuple[str, ...]
) -> tuple[str, dict[str, str]]:
    """Return the kind and the arguments of an address; refuse unknown arguments."""
    kind, colon, _ = description.partition(":")
    if not colon or kind not in kinds:
        raise ValueError(f"must begin with {', '.join(examples[:-1])} or {examples[-1]}")
    known = kinds[kind]
    positional = 2 if known[0] == "host" else 1
    given = named_arguments(description, known[:positional])
    refuse_unknown_arguments(
        {name: value for name, value in given.items() if name not in known}, known
    )
    return kind, given


def _socket_path(given: dict[str, str]) -> Path:
    text = given.pop("path", "")
    if not text or text.endswith("/"):
        raise ValueError("the path is missing, for example unix:/run/tracker/control.sock")
    path = Path(text).absolute()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"the path must have at most {MAX_SOCKET_PATH} bytes: {path}")
    return path


def _file(given: dict[str, str], name: str) -> Path:
    text = given.pop(name, "")
    if not text:
        raise ValueError(f"{name}=FILE is missing; tracker-admin certs creates such files")
    return Path(text)


@contextmanager
def _reporting_file_errors() -> Iterator[None]:
    """Convert an OSError for a file to a ValueError."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None


def advertised(description: str) -> str:
    """Return the address that an instance advertises to clients of its control port.

    It lacks the arguments that only clients know, such as their certificates.

    :param description: a valid description of the listening endpoint.
    """
    kind, given = _read(listening_endpoint(description), _SERVER, _EXAMPLES)
    if kind == "unix":
        return unix_address(_socket_path(given))
    interface = given.get("interface", _LOOPBACK)
    everywhere = interface in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    host = socket.getfqdn() if everywhere else interface.replace(":", "\\:")
    return f"{kind}:{host}:{given['port']}"
