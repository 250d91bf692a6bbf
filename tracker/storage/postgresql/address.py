"""The database that a URL names, and the parameters of its connection."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict

#: Parameters of libpq that the URL may override. Seconds, but for tcp_user_timeout (milliseconds):
#: a server that has vanished is noticed within these.
_DEFAULTS: Final = {
    "application_name": "tracker-process",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    # After a failover the old primary may still answer, or come back as a standby.
    "target_session_attrs": "read-write",
}
_TIMESCALE: Final = "timescale"


@frozen
class PostgreSQLAddress:
    """A database, and whether positions are to be a hypertable in it."""

    parameters: dict[str, Any] = field(repr=False)
    """Parameters of libpq; they may hold a password."""
    url: str
    """For people: without password and options."""
    timescale: bool = False

    @classmethod
    def from_url(cls, url: str) -> PostgreSQLAddress:
        """Read ``postgresql://[user[:password]@][host][:port][/database][?option=value…]``.

        The options are those of libpq, and ``timescale=1``.

        :raises ValueError: with one line that holds nothing of the URL but names of options.
        """
        base, question, query = url.partition("?")
        pairs = query.split("&") if question else []
        asked = [pair for pair in pairs if pair.partition("=")[0] == _TIMESCALE]
        if any(pair not in ("timescale=0", "timescale=1") for pair in asked):
            raise ValueError("timescale: is 1 or 0")
        rest = "&".join(pair for pair in pairs if pair not in asked)
        try:
            given = conninfo_to_dict(f"{base}?{rest}" if rest else base)
        except psycopg.Error as error:
            raise ValueError(_without_secrets(str(error))) from None
        for name in ("connect_timeout", "port"):
            for value in str(given.get(name, "0")).split(","):
                if value and not (value.isascii() and value.isdecimal()):
                    raise ValueError(f"{name} is not a number")
        return cls(
            # Rows are sent as UTF-8, whatever the environment says.
            {**_DEFAULTS, **given, "client_encoding": "UTF8"},
            _shown(given),
            asked[-1:] == ["timescale=1"],
        )


def _without_secrets(message: str) -> str:
    # libpq repeats what it does not understand, which may be a part of the password.
    if message.startswith("invalid URI query parameter"):
        return " ".join(message.split())
    return (
        "not a URL as libpq reads it, postgresql://user:password@host:5432/database?sslmode=…; "
        "special characters in it are percent-encoded"
    )


def _shown(given: dict[str, Any]) -> str:
    user = f"{quote(given['user'])}@" if given.get("user") else ""
    host = quote(str(given.get("host") or given.get("hostaddr") or ""), safe=",/:[]")
    port = f":{given['port']}" if given.get("port") else ""
    if host.startswith("/"):
        host = quote(host, safe="")
    name = f"/{quote(given['dbname'])}" if given.get("dbname") else ""
    return f"postgresql://{user}{host}{port}{name}"
