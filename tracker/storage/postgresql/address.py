"""URLs of PostgreSQL databases, and the parameters of their connections."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict

#: Parameters of libpq, which the URL may override. Times are in seconds, tcp_user_timeout is in
#: milliseconds. They limit the time until a vanished server is noticed.
_DEFAULTS: Final = {
    "application_name": "tracker-process",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    # After a failover the old primary may still reply, or return as a standby.
    "target_session_attrs": "read-write",
}
_TIMESCALE: Final = "timescale"


@frozen
class PostgreSQLAddress:
    """A database, and the parameters of connections to it."""

    parameters: dict[str, Any] = field(repr=False)
    """Parameters of libpq, which may include a password."""
    url: str
    """URL without password and options, for messages."""
    timescale: bool = False
    """True: the table positions must be a hypertable of TimescaleDB."""

    @classmethod
    def from_url(cls, url: str) -> PostgreSQLAddress:
        """Parse ``postgresql://[user[:password]@][host][:port][/database][?option=value…]``.

        The options are those of libpq, and ``timescale=1``.

        :raises ValueError: if the URL is malformed; the text is one line, and quotes nothing of
            the URL except names of options.
        """
        base, question, query = url.partition("?")
        pairs = query.split("&") if question else []
        timescale = [pair for pair in pairs if pair.partition("=")[0] == _TIMESCALE]
        if any(pair not in ("timescale=0", "timescale=1") for pair in timescale):
            raise ValueError("timescale must be 1 or 0")
        rest = "&".join(pair for pair in pairs if pair not in timescale)
        try:
            given = conninfo_to_dict(f"{base}?{rest}" if rest else base)
        except psycopg.Error as error:
            raise ValueError(_without_secrets(str(error))) from None
        for name in ("connect_timeout", "port"):
            for value in str(given.get(name, "0")).split(","):
                if value and not (value.isascii() and value.isdecimal()):
                    raise ValueError(f"{name} must be a number")
        return cls(
            # Rows are sent as UTF-8, independent of the environment.
            {**_DEFAULTS, **given, "client_encoding": "UTF8"},
            _shown(given),
            timescale[-1:] == ["timescale=1"],
        )


def _without_secrets(message: str) -> str:
    # libpq quotes the part that it does not understand, which may be part of the password.
    if message.startswith("invalid URI query parameter"):
        return " ".join(message.split())
    return (
        "not a valid PostgreSQL URL; write it as "
        "postgresql://user:password@host:5432/database?sslmode=…, and percent-encode special "
        "characters"
    )


def _shown(given: dict[str, Any]) -> str:
    user = f"{quote(given['user'])}@" if given.get("user") else ""
    host = quote(str(given.get("host") or given.get("hostaddr") or ""), safe=",/:[]")
    port = f":{given['port']}" if given.get("port") else ""
    if host.startswith("/"):
        host = quote(host, safe="")
    name = f"/{quote(given['dbname'])}" if given.get("dbname") else ""
    return f"postgresql://{user}{host}{port}{name}"
