"""The Redis that is examined, and how it is asked from a command line."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from attrs import define, field

from tracker.errors import Refused, Unavailable
from tracker.observe.findings import Finding, skipped
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import info_facts, mapping

_MAY_NOT_RUN: Final = re.compile(r"run the '([^']+)' command")
_MAY_NOT_ACCESS: Final = re.compile(r"access the '([^']*)' key")
_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|::1", re.IGNORECASE)

Info = dict[str, str]


@define
class Server:
    """A connection to a server in whatever state it is, and what it has told already."""

    redis: RedisConnection
    address: RedisAddress
    lost: bool = field(default=False, init=False)
    """Whether it has not answered."""
    _info: Info | None = field(default=None, init=False)

    @property
    def cli(self) -> str:
        """What begins a line that asks it."""
        return redis_cli(self.address)

    @property
    def user(self) -> str:
        """Who asks."""
        return self.address.username or "default"

    async def info(self) -> Info:
        """Name → value, of all sections."""
        if self._info is None:
            self._info = info_facts(await self.redis.execute("INFO"))
        return self._info

    async def setting(self, name: str) -> str:
        """The value of a setting; empty where the server has none of this name."""
        reply: list[bytes] = await self.redis.execute("CONFIG", "GET", name)
        found = mapping(reply)
        return found.get(name.encode(), b"").decode()

    def finding(self, error: Exception) -> Finding | None:
        """Return what to report of an error of Redis; None for any other exception."""
        if isinstance(error, Refused | Unavailable):
            return skipped(f"Redis: {error}", self.grant(error))
        return None

    def grant(self, error: Exception) -> str:
        """The line that lets the user do what was refused; empty if that was not the reason."""
        rights = rights_in(str(error)) if "permission" in str(error) else set()
        return self.grant_all(rights) if rights else ""

    def grant_all(self, rights: set[str], user: str = "") -> str:
        """The line that gives the user, or another one, some rights."""
        given = " ".join(map(shlex.quote, sorted(rights)))
        return f"{self.cli} ACL SETUSER {shlex.quote(user or self.user)} {given}"


def rights_in(text: str) -> set[str]:
    """What is missing when Redis refuses something: ``+command`` or ``~key``."""
    return {f"+{name}" for name in _MAY_NOT_RUN.findall(text)} | {
        f"~{name}" for name in _MAY_NOT_ACCESS.findall(text)
    }


def redis_cli(address: RedisAddress) -> str:
    """``redis-cli``, and where; it asks for the password.

    It names no user: that of a role need not, and had better not, be one who may mend things.
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
    """Whether the server is reached without leaving this machine."""
    return bool(address.path or _LOOPBACK.fullmatch(address.host))


def url_for(address: RedisAddress, host: str, port: Any) -> str:
    """The variable for another server, with the places of secrets only."""
    scheme = "rediss" if address.tls else "redis"
    login = "USER:PASSWORD@" if address.username else ":PASSWORD@" if address.password else ""
    place = f"[{host}]" if ":" in str(host) else host
    return f"REDIS_URL={shlex.quote(f'{scheme}://{login}{place}:{port}/{address.database}')}"
