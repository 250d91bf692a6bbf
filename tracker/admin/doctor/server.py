"""The Redis server to be checked, and the command lines that change it."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from attrs import define, field

from tracker.errors import Refused, Unavailable
from tracker.observe.findings import Finding, skipped
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import info_fields, mapping

_MAY_NOT_RUN: Final = re.compile(r"run the '([^']+)' command")
_MAY_NOT_ACCESS: Final = re.compile(r"access the '([^']*)' key")
_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|::1", re.IGNORECASE)

Info = dict[str, str]


@define
class Server:
    """A connection to a server in any state, with a copy of its INFO."""

    redis: RedisConnection
    address: RedisAddress
    lost: bool = field(default=False, init=False)
    """True if the connection was lost, or the server did not reply."""
    _info: Info | None = field(default=None, init=False)

    @property
    def cli(self) -> str:
        """The ``redis-cli`` command for this server."""
        return redis_cli(self.address)

    @property
    def user(self) -> str:
        """The user that runs the checks."""
        return self.address.username or "default"

    async def info(self) -> Info:
        """Return name → value of all sections of INFO."""
        if self._info is None:
            self._info = info_fields(await self.redis.execute("INFO"))
        return self._info

    async def setting(self, name: str) -> str:
        """Return the value of a setting; an empty text if the server does not have it."""
        reply: list[bytes] = await self.redis.execute("CONFIG", "GET", name)
        found = mapping(reply)
        return found.get(name.encode(), b"").decode()

    def finding(self, error: Exception) -> Finding | None:
        """Return the finding for an error of Redis; None for any other exception."""
        if isinstance(error, Refused | Unavailable):
            return skipped(f"Redis: {error}", self.grant(error))
        return None

    def grant(self, error: Exception) -> str:
        """Return the command that grants the right that an error names; empty if it names none."""
        rights = rights_in(str(error)) if "permission" in str(error) else set()
        return self.grant_all(rights) if rights else ""

    def grant_all(self, rights: set[str], user: str = "") -> str:
        """Return the command that grants rights to a user.

        :param user: empty for the user that runs the checks.
        """
        given = " ".join(map(shlex.quote, sorted(rights)))
        return f"{self.cli} ACL SETUSER {shlex.quote(user or self.user)} {given}"


def rights_in(text: str) -> set[str]:
    """Return the missing rights that an error of Redis names: ``+command`` or ``~key``."""
    return {f"+{name}" for name in _MAY_NOT_RUN.findall(text)} | {
        f"~{name}" for name in _MAY_NOT_ACCESS.findall(text)
    }


def redis_cli(address: RedisAddress) -> str:
    """Return the ``redis-cli`` command for an address; it asks for the password.

    It names no user, since the user of a role should not have the right to change settings.
    """
    words = ["redis-cli"]
    if address.path:
        words += ["-s", address.path]
    elif not address.sentinels:
        words += ["-h", address.host, "-p", str(address.port)]
    if address.tls:
        words += ["--tls", *(["--cacert", address.ca_file] if address.ca_file else [])]
    if address.database:
        words += ["-n", str(address.database)]
    if address.password is not None:
        words.append("--askpass")
    return shlex.join(words)


def is_here(address: RedisAddress) -> bool:
    """Return True if the server is on this machine."""
    return bool(address.path or _LOOPBACK.fullmatch(address.host))


def url_for(address: RedisAddress, host: str, port: Any) -> str:
    """Return ``REDIS_URL`` for another server, with placeholders for secrets."""
    scheme = "rediss" if address.tls else "redis"
    login = "USER:PASSWORD@" if address.username else ":PASSWORD@" if address.password else ""
    name = f"[{host}]" if ":" in str(host) else host
    return f"REDIS_URL={shlex.quote(f'{scheme}://{login}{name}:{port}/{address.database}')}"
