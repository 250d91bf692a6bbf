"""Where Redis is: a URL, read once at start."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import field, frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from tracker.certificates import trust_root

_CONNECT_TIMEOUT = 5  # seconds


@frozen
class RedisAddress:
    """A Redis server and how to log in to it.

    ``str()`` of it holds no password and is fit for a log.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    """Of a Unix socket; then host and port mean nothing."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    """PEM file of the authorities that may vouch for the server; None = the system's."""

    @classmethod
    def from_url(cls, url: str) -> RedisAddress:
        """Read ``redis://``, ``rediss://`` (TLS) or ``unix://``.

        ``redis://[[user]:password@]host[:port][/database]``,
        ``rediss://…[?ca=/path/to/ca.pem]``, ``unix://[[user]:password@]/path[?db=0]``.
        User and password are percent-encoded.

        :raises ValueError: with one line that says what is wrong, without the password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            if port == 0:
                raise ValueError("port 0")
        except ValueError:
            raise ValueError("Redis URL: the port or the host is not valid") from None
        # What is wrong is never quoted: a password that should have been percent-encoded
        # may end up in any part.
        scheme = parts.scheme
        if scheme not in ("redis", "rediss", "unix"):
            raise ValueError("Redis URL: must begin with redis://, rediss:// or unix://")
        query = parse_qs(parts.query, keep_blank_values=True)
        known = {"redis": set[str](), "rediss": {"ca"}, "unix": {"db"}}[scheme]
        if set(query) - known or parts.fragment:
            allowed = f"only ?{min(known)}=… is known" if known else "it takes no parameters"
            raise ValueError(f"Redis URL: {allowed} (in a password, ? and # are %3F and %23)")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        if username is not None and password is None:
            raise ValueError("Redis URL: a user without a password (user:password@…)")
        if scheme == "unix":
            if parts.hostname or not parts.path.startswith("/") or not parts.path.strip("/"):
                raise ValueError("Redis URL: unix:// needs an absolute path, unix:///path")
            database = query.get("db", ["0"])[-1]
        else:
            if not parts.hostname:
                raise ValueError(f"Redis URL: {scheme}:// needs a host")
            database = parts.path.removeprefix("/") or "0"
        if not (database.isascii() and database.isdigit() and len(database) < 10):
            raise ValueError("Redis URL: the database must be a number (in a password, / is %2F)")
        return cls(
            host=parts.hostname or "",
            port=6379 if port is None else port,
            path=unquote(parts.path) if scheme == "unix" else "",
            database=int(database),
            username=username,
            password=password,
            tls=scheme == "rediss",
            ca_file=query["ca"][-1] if "ca" in query else None,
        )

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.database}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """Where to connect to; over TLS the server's certificate and name are checked.

        :raises OSError: when the file of authorities cannot be read.
        :raises ValueError: when it holds no certificate.
        """
        if self.path:
            return UNIXClientEndpoint(reactor, self.path, timeout=_CONNECT_TIMEOUT)
        plain = HostnameEndpoint(reactor, self.host, self.port, timeout=_CONNECT_TIMEOUT)
        if not self.tls:
            return plain
        trusted = None if self.ca_file is None else trust_root(Path(self.ca_file))
        return wrapClientTLS(optionsForClientTLS(self.host, trustRoot=trusted), plain)
