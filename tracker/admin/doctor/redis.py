"""Check that Redis answers, and keeps what it confirms."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.admin.doctor.server import Server, is_here, redis_cli, url_for
from tracker.errors import Refused, Unavailable
from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.observe.space import check_free_space
from tracker.redis.address import RedisAddress

#: The lowest supported major version.
_REDIS: Final = 7
_VALKEY: Final = 8
#: Parts of maxmemory.
MEMORY_WARNING: Final = 0.75
MEMORY_FAILURE: Final = 0.9
#: Seconds that the median of some answers takes.
LATENCY_WARNING: Final = 0.005
LATENCY_FAILURE: Final = 0.1
_PINGS: Final = 11
#: Seconds between the two clocks.
CLOCK_WARNING: Final = 1.0
CLOCK_FAILURE: Final = 30.0

Facts = Mapping[str, str]
Rule = Callable[[Facts, str], Any]


def unreachable(address: RedisAddress, reason: str) -> Finding:
    """Return the finding that Redis cannot be used, for a reason."""
    return failure(reason, _fix_for(reason, address))


def _fix_for(reason: str, address: RedisAddress) -> str:
    cli = redis_cli(address)
    with_login = str(address).replace("://", "://USER:PASSWORD@", 1)
    login = f"REDIS_URL={shlex.quote(with_login)}"
    for pattern, fix in (
        (r"WRONGPASS|NOAUTH|login failed", f"{login}  # percent-encoded; users: ACL LIST"),
        (r"NOPERM", f"{cli} ACL SETUSER {shlex.quote(address.username or 'default')} +ping"),
        (r"LOADING", f"{cli} INFO persistence  # and wait until loading is 0"),
        (r"MISCONF", f"df -h  # make room in Redis' folder, {cli} CONFIG GET dir"),
        (
            r"DB index|select database",
            f"{cli} CONFIG GET databases  # and another one in REDIS_URL",
        ),
        (r"certificate|TLS|SSL", "REDIS_URL='rediss://…?ca=/path/to/ca.pem'"),
        (r"Sentinel|unknown master", "redis-cli -p 26379 SENTINEL MASTERS"),
        (r"refused|no such file", "systemctl start redis-server  # or say where it is: REDIS_URL"),
        (
            r"no answer|no reply|not done",
            f"{cli} PING  # if it hangs: systemctl restart redis-server",
        ),
    ):
        if re.search(pattern, reason, re.IGNORECASE):
            return fix
    if address.path:
        return f"ls -l {shlex.quote(address.path)}  # who may write there, or REDIS_URL"
    place = f"{shlex.quote(address.host)} {address.port}"
    return f"nc -vz {place}  # the name, the network, the firewall; or REDIS_URL"


async def reachable(server: Server) -> Finding:
    """Check that the server answers."""
    try:
        await server.redis.execute("PING")
    except (Refused, Unavailable) as error:
        server.lost = isinstance(error, Unavailable)
        return unreachable(server.address, f"{error} ({server.address})")
    return ok(f"{server.address} answers")


def version(info: Facts, cli: str) -> Finding:
    """Check that the server is not too old."""
    valkey = "valkey_version" in info
    name, found, least = (
        ("Valkey", info["valkey_version"], _VALKEY)
        if valkey
        else ("Redis", info["redis_version"], _REDIS)
    )
    if int(found.partition(".")[0]) >= least:
        return ok(f"{name} {found}")
    package = "valkey-server" if valkey else "redis-server"
    return failure(
        f"{name} {found}: Redis 7.0 or Valkey 8 is needed, or later",
        f"apt-get install {package}  # {name} {least} or later",
    )


def role(info: Facts, address: RedisAddress) -> Finding:
    """Check that the server is a master, and not a replica or a Sentinel."""
    if info.get("role") == "master":
        return ok("a master")
    if info.get("role") == "slave":
        host, port = info["master_host"], info["master_port"]
        return failure(
            f"a replica of {host}:{port}: it refuses writes", url_for(address, host, port)
        )
    place = shlex.quote(f"redis+sentinel://{address.host}:{address.port}/MASTER")
    return failure("no server that stores anything", f"REDIS_URL={place}  # if it is a Sentinel")


def append_only(info: Facts, cli: str) -> Finding:
    """Check that the server keeps a log of all writes."""
    if info["aof_enabled"] == "1":
        return ok("appendonly yes")
    return failure(
        "appendonly no: acknowledged records are lost when Redis stops", _set(cli, "appendonly yes")
    )


def fsync(value: str, cli: str) -> Finding:
    """Check that confirmed writes are on disk."""
    if value == "always":
        return ok("appendfsync always")
    fix = _set(cli, "appendfsync always")
    if value == "everysec":
        return warning(
            "appendfsync everysec: up to a second of acknowledged records is lost when the "
            "power fails",
            fix,
        )
    return failure(
        f"appendfsync {value}: up to half a minute of acknowledged records is lost when the "
        "power fails",
        fix,
    )


def fsync_on_rewrite(value: str, cli: str) -> Finding:
    """Check that confirmed writes are on disk while the log is rewritten, too."""
    if value == "no":
        return ok("no-appendfsync-on-rewrite no")
    return failure(
        f"no-appendfsync-on-rewrite {value}: nothing is synchronised while the log is rewritten",
        _set(cli, "no-appendfsync-on-rewrite no"),
    )


def writes(info: Facts, cli: str) -> Iterator[Finding]:
    """Check that the last writes to disk have succeeded."""
    well = True
    for name, what, fix in (
        (
            "aof_last_write_status",
            "the last write to the append-only file failed: Redis refuses writes",
            f"df -h  # make room in Redis' folder, {cli} CONFIG GET dir",
        ),
        (
            "aof_last_bgrewrite_status",
            "the last rewrite of the append-only file failed: it grows until the disk is full",
            f"{cli} BGREWRITEAOF  # after its log has said why",
        ),
        (
            "rdb_last_bgsave_status",
            "the last snapshot failed: Redis may refuse writes",
            f"{cli} BGSAVE  # after its log has said why",
        ),
    ):
        if info.get(name, "ok") != "ok":
            well = False
            yield failure(f"{what} ({name} {info[name]})", fix)
    if well:
        yield ok("the last writes, rewrites and snapshots went well")


def eviction(info: Facts, cli: str) -> Finding:
    """Check that the server evicts nothing."""
    policy = info["maxmemory_policy"]
    if policy == "noeviction":
        return ok("maxmemory-policy noeviction")
    return failure(
        f"maxmemory-policy {policy}: when memory is full whole streams are deleted, unread",
        _set(cli, "maxmemory-policy noeviction"),
    )


def memory(info: Facts, cli: str) -> Finding:
    """Check that the server has enough memory."""
    used, most = int(info["used_memory"]), int(info["maxmemory"])
    if not most:
        return ok(f"{_mib(used)} used, no maxmemory")
    seen = f"{_mib(used)} of maxmemory {_mib(most)} used ({used / most:.0%})"
    if used < MEMORY_WARNING * most:
        return ok(seen)
    fix = f"{_set(cli, f'maxmemory {_mib(2 * used)}')}  # or trim sooner: janitor --retain-bytes"
    if used < MEMORY_FAILURE * most:
        return warning(seen, fix)
    return failure(f"{seen}: devices are told nothing any more when it is full", fix)


async def latency(server: Server, clock: IReactorTime) -> Finding:
    """Check that the server answers quickly."""
    took = []
    for _ in range(_PINGS):
        begun = clock.seconds()
        await server.redis.execute("PING")
        took.append(clock.seconds() - begun)
    return judge_latency(median(took), max(took), server.cli)


def judge_latency(middle: float, worst: float, cli: str) -> Finding:
    """Judge the median and the worst time of an answer, in seconds."""
    seen = f"{1000 * middle:.1f} ms (median of {_PINGS}), {1000 * worst:.1f} ms (the worst)"
    if middle <= LATENCY_WARNING:
        return ok(seen)
    fix = f"{cli} SLOWLOG GET 10  # if it shows nothing: the network, or a slow disk"
    return (warning if middle <= LATENCY_FAILURE else failure)(seen, fix)


async def clock_of(server: Server, clock: IReactorTime) -> Finding:
    """Check that the server's clock agrees with this machine's."""
    begun = clock.seconds()
    seconds, microseconds = await server.redis.execute("TIME")
    # It was read at some time in between.
    ours = (begun + clock.seconds()) / 2
    return judge_clock(int(seconds) + int(microseconds) / 1e6 - ours)


def judge_clock(ahead: float) -> Finding:
    """Judge the seconds by which Redis' clock is ahead."""
    apart = abs(ahead)
    if apart <= CLOCK_WARNING:
        return ok(f"{apart:.1f} s from this machine's clock")
    seen = f"{apart:.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's clock"
    fix = "timedatectl set-ntp true  # on both machines"
    if apart <= CLOCK_FAILURE:
        return warning(seen, fix)
    return failure(f"{seen}: ages, expiries and received_at are wrong", fix)


async def disk(server: Server) -> Finding:
    """Check the free space of the server's folder, if it is on this machine."""
    if not is_here(server.address) or not _is_redis((await server.info()).get("process_id", "")):
        return skipped("Redis is not on this machine, or in a container")
    folder = await server.setting("dir")
    return check_free_space(folder, "# or trim sooner: janitor --retain")


def _is_redis(pid: str) -> bool:
    """Return whether this is a process of a Redis server on this machine."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "redis" in name or "valkey" in name


#: Name → check that needs only INFO.
BY_INFO: Final[Mapping[str, Rule]] = {
    "redis-version": version,
    "redis-append-only": append_only,
    "redis-writes": writes,
    "redis-eviction": eviction,
    "redis-memory": memory,
}
#: Name → the setting that decides, and the check of its value.
BY_SETTING: Final[Mapping[str, tuple[str, Callable[[str, str], Finding]]]] = {
    "redis-fsync": ("appendfsync", fsync),
    "redis-fsync-on-rewrite": ("no-appendfsync-on-rewrite", fsync_on_rewrite),
}


def _set(cli: str, setting: str) -> str:
    return f"{cli} CONFIG SET {setting} && {cli} CONFIG REWRITE"


def _mib(size: int) -> str:
    return f"{math.ceil(size / (1 << 20))}mb"
