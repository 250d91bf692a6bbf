"""Redis URLs, parsed at start."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from attrs import field, frozen

from tracker.config import DEFAULT_REDIS, ConfigError, Environment, maybe_secret

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
#: Names that Sentinels accept for a master (sentinel.c, sentinelCommand, "monitor").
_MASTER: Final = re.compile(r"[A-Za-z0-9._-]+")
#: Scheme → its query parameters.
_SCHEMES: Final = {
    "redis": (),
    "rediss": ("ca",),
    "unix": ("db",),
    "redis+sentinel": ("sentinel_password",),
    "rediss+sentinel": ("ca", "sentinel_password"),
}


HostAndPort = tuple[str, int]
"""Host and port."""


@frozen
class RedisAddress:
    """The location of a Redis server, and the credentials for it.

    ``str(address)`` contains no password, and can therefore be logged.
    """

    host: str = ""
    port: int = 6379
    path: str = ""
    """Path of a Unix socket. If set, host and port are unused."""
    embedded: bool = False
    """True if this process starts the server."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    """PEM file of the CA certificates to trust; None: those of the system."""

    sentinels: tuple[HostAndPort, ...] = ()
    """Sentinels that know the address of the server. If set, host, port and path are unused."""
    master: str = ""
    """Name of the master at the Sentinels."""
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> RedisAddress:
        """Parse ``redis://``, ``rediss://`` (TLS), ``unix://`` or ``redis+sentinel://``.

        ``redis://[[user]:password@]host[:port][/database]``,
        ``rediss://…[?ca=/path/to/ca.pem]``, ``unix://[[user]:password@]/path[?db=0]``,
        ``redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/MASTER[/database]
        [?sentinel_password=…]``, ``rediss+sentinel://…``. User and passwords are
        percent-encoded.

        :raises ValueError: if the URL is malformed; the message is one line without the password.
        """
        try:
            parts = urlsplit(url)
            sentinel = parts.scheme.endswith("+sentinel")
            servers = _hosts_and_ports(
                parts, _SENTINEL_PORT if sentinel else _PORT, several=sentinel
            )
        except ValueError:
            raise ValueError("Redis URL: the port or the host is not valid") from None
        # Messages never quote the URL: a password that is not percent-encoded may end up in any
        # part of it.
        scheme = parts.scheme
        if scheme not in _SCHEMES:
            known = "redis://, rediss://, unix:// or redis+sentinel://"
            raise ValueError(f"Redis URL: must begin with {known}")
        query = _parameters(parts)
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        if username is not None and password is None:
            raise ValueError("Redis URL: user without a password; write user:password@…")
        path = master = ""
        if scheme == "unix":
            if parts.hostname or not parts.path.startswith("/") or not parts.path.strip("/"):
                raise ValueError("Redis URL: unix:// requires an absolute path (unix:///path)")
            path = unquote(parts.path)
            database = query.get("db", "0")
        else:
            if not all(host for host, _ in servers):
                raise ValueError(f"Redis URL: {scheme}:// requires a host")
            database = parts.path.removeprefix("/")
            if sentinel:
                master, _, database = database.partition("/")
                if not _MASTER.fullmatch(master):
                    raise ValueError(
                        f"Redis URL: {scheme}:// requires the master's name ({scheme}://host/NAME)"
                    )
            database = database or "0"
        if not (database.isascii() and database.isdigit() and len(database) < 10):
            raise ValueError(
                "Redis URL: the database must be a number (write / in a password as %2F)"
            )
        host, port = ("", _PORT) if sentinel else servers[0]
        return cls(
            host=host,
            port=port,
            path=path,
            database=int(database),
            username=username,
            password=password,
            tls=scheme.startswith("rediss"),
            ca_file=query.get("ca"),
            sentinels=servers if sentinel else (),
            master=master,
            sentinel_password=query.get("sentinel_password"),
        )

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        scheme = "rediss" if self.tls else "redis"
        if self.sentinels:
            sentinels = ",".join(map(host_and_port, self.sentinels))
            return f"{scheme}+sentinel://{sentinels}/{self.master}/{self.database}"
        return f"{scheme}://{host_and_port((self.host, self.port))}/{self.database}"


def redis_address(given: str | None, environ: Environment) -> RedisAddress:
    """Return the address from ``--redis``, ``REDIS_URL`` or its file, or the default address.

    :raises ConfigError: if the URL is malformed.
    """
    try:
        return RedisAddress.from_url(given or maybe_secret(environ, "REDIS_URL") or DEFAULT_REDIS)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _hosts_and_ports(
    parts: SplitResult, default_port: int, several: bool
) -> tuple[HostAndPort, ...]:
    """Return the hosts and ports of a URL; a missing host is an empty text."""
    location = parts.netloc.rpartition("@")[2]
    if "," in location and not several:
        raise ValueError("several hosts")
    servers: list[HostAndPort] = []
    for text in location.split(",") if several else (location,):
        server = urlsplit(f"//{text}")
        if server.port == 0:
            raise ValueError("port 0")
        servers.append(
            (server.hostname or "", default_port if server.port is None else server.port)
        )
    return tuple(servers)


def _parameters(parts: SplitResult) -> dict[str, str]:
    """Return the query parameters of a URL. If one is repeated, its last value counts."""
    # A plus sign stands for itself, as in the other parts of the URL.
    given = parse_qs(parts.query.replace("+", "%2B"), keep_blank_values=True)
    known = _SCHEMES[parts.scheme]
    if set(given) - set(known) or parts.fragment:
        names = " and ".join(f"?{name}=…" for name in known)
        allowed = f"only {names} allowed" if known else "no parameters allowed"
        raise ValueError(
            f"Redis URL: {allowed} for {parts.scheme}:// "
            "(write ? and # in a password as %3F and %23)"
        )
    return {name: values[-1] for name, values in given.items()}


def host_and_port(server: HostAndPort) -> str:
    """Return a host and a port as text: ``cache:6379`` or ``[2001:db8::1]:6379``."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
