"""Check that Redis replies, and that its confirmed writes are durable."""

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
from tracker.redis.durability import writes_log

#: Lowest supported major versions.
_MIN_REDIS: Final = 7
_MIN_VALKEY: Final = 8
#: Used fractions of maxmemory.
MEMORY_WARNING: Final = 0.75
MEMORY_FAILURE: Final = 0.9
#: Median time of a PING, in seconds.
LATENCY_WARNING: Final = 0.005
LATENCY_FAILURE: Final = 0.1
_PINGS: Final = 11
#: Difference between the two clocks, in seconds.
CLOCK_WARNING: Final = 1.0
CLOCK_FAILURE: Final = 30.0

Facts = Mapping[str, str]
Rule = Callable[[Facts, str], Any]


def unreachable(address: RedisAddress, reason: str) -> Finding:
    """Return the finding that Redis cannot be used, with the fix for the reason."""
    return failure(reason, _fix_for(reason, address))


def _fix_for(reason: str, address: RedisAddress) -> str:
    cli = redis_cli(address)
    with_login = str(address).replace("://", "://USER:PASSWORD@", 1)
    login = f"REDIS_URL={shlex.quote(with_login)}"
    for pattern, fix in (
        (
            r"WRONGPASS|NOAUTH|login failed",
            f"{login}  # percent-encoded; ACL LIST shows the users",
        ),
        (r"NOPERM", f"{cli} ACL SETUSER {shlex.quote(address.username or 'default')} +ping"),
        (r"LOADING", f"{cli} INFO persistence  # wait until loading is 0"),
        (r"MISCONF", f"df -h  # make space in the folder that {cli} CONFIG GET dir shows"),
        (
            r"DB index|select database",
            f"{cli} CONFIG GET databases  # and set another one in REDIS_URL",
        ),
        (r"certificate|TLS|SSL", "REDIS_URL='rediss://…?ca=/path/to/ca.pem'"),
        (r"Sentinel|unknown master", "redis-cli -p 26379 SENTINEL MASTERS"),
        (r"refused|no such file", "systemctl start redis-server  # or correct REDIS_URL"),
        (
            r"no reply|not done",
            f"{cli} PING  # if it hangs: systemctl restart redis-server",
        ),
    ):
        if re.search(pattern, reason, re.IGNORECASE):
            return fix
    if address.path:
        return f"ls -l {shlex.quote(address.path)}  # check the permissions, or correct REDIS_URL"
    target = f"{shlex.quote(address.host)} {address.port}"
    return f"nc -vz {target}  # check name, network and firewall, or correct REDIS_URL"


async def reachable(server: Server) -> Finding:
    """Check that the server replies."""
    try:
        await server.redis.execute("PING")
    except (Refused, Unavailable) as error:
        server.lost = isinstance(error, Unavailable)
        return unreachable(server.address, f"{error} ({server.address})")
    return ok(f"{server.address} replies")


def version(info: Facts, cli: str) -> Finding:
    """Check that the server is not too old."""
    valkey = "valkey_version" in info
    name, found, minimum = (
        ("Valkey", info["valkey_version"], _MIN_VALKEY)
        if valkey
        else ("Redis", info["redis_version"], _MIN_REDIS)
    )
    if int(found.partition(".")[0]) >= minimum:
        return ok(f"{name} {found}")
    package = "valkey-server" if valkey else "redis-server"
    return failure(
        f"{name} {found} is too old: Redis 7.0 or Valkey 8.0 is required",
        f"apt-get install {package}  # {name} {minimum} or later",
    )


def replication(info: Facts, address: RedisAddress) -> Finding:
    """Check that the server is a master, and not a replica or a Sentinel."""
    if info.get("role") == "master":
        return ok("the server is a master")
    if info.get("role") == "slave":
        host, port = info["master_host"], info["master_port"]
        return failure(
            f"the server is a replica of {host}:{port} and refuses writes",
            url_for(address, host, port),
        )
    url = shlex.quote(f"redis+sentinel://{address.host}:{address.port}/MASTER")
    return failure("the server stores no data", f"REDIS_URL={url}  # if it is a Sentinel")


def append_only(info: Facts, cli: str) -> Finding:
    """Check that the server writes an append-only file."""
    if writes_log(info):
        return ok("appendonly yes")
    return failure(
        "appendonly no: acknowledged records are lost when Redis stops", _set(cli, "appendonly yes")
    )


def fsync(value: str, cli: str) -> Finding:
    """Check that confirmed writes are synchronised to disk."""
    if value == "always":
        return ok("appendfsync always")
    fix = _set(cli, "appendfsync always")
    if value == "everysec":
        return warning(
            "appendfsync everysec: up to a second of acknowledged records is lost on a power "
            "failure",
            fix,
        )
    return failure(
        f"appendfsync {value}: up to half a minute of acknowledged records is lost on a power "
        "failure",
        fix,
    )


def fsync_on_rewrite(value: str, cli: str) -> Finding:
    """Check that confirmed writes are synchronised while the append-only file is rewritten."""
    if value == "no":
        return ok("no-appendfsync-on-rewrite no")
    return failure(
        f"no-appendfsync-on-rewrite {value}: writes are not synchronised during a rewrite",
        _set(cli, "no-appendfsync-on-rewrite no"),
    )


def writes(info: Facts, cli: str) -> Iterator[Finding]:
    """Check that the last writes to disk have succeeded."""
    succeeded = True
    for name, problem, fix in (
        (
            "aof_last_write_status",
            "the last write to the append-only file failed, and Redis refuses writes",
            f"df -h  # make space in the folder that {cli} CONFIG GET dir shows",
        ),
        (
            "aof_last_bgrewrite_status",
            "the last rewrite of the append-only file failed, and the file grows without limit",
            f"{cli} BGREWRITEAOF  # first see the reason in Redis' log",
        ),
        (
            "rdb_last_bgsave_status",
            "the last snapshot failed, and Redis may refuse writes",
            f"{cli} BGSAVE  # first see the reason in Redis' log",
        ),
    ):
        if info.get(name, "ok") != "ok":
            succeeded = False
            yield failure(f"{problem} ({name} {info[name]})", fix)
    if succeeded:
        yield ok("the last write, rewrite and snapshot succeeded")


def eviction(info: Facts, cli: str) -> Finding:
    """Check that the server does not evict keys."""
    policy = info["maxmemory_policy"]
    if policy == "noeviction":
        return ok("maxmemory-policy noeviction")
    return failure(
        f"maxmemory-policy {policy}: Redis deletes whole streams, unread, when memory is full",
        _set(cli, "maxmemory-policy noeviction"),
    )


def memory(info: Facts, cli: str) -> Finding:
    """Check that the server has enough memory."""
    used, limit = int(info["used_memory"]), int(info["maxmemory"])
    if not limit:
        return ok(f"{_shown(used)} used, no maxmemory")
    seen = f"{_shown(used)} of {_shown(limit)} (maxmemory) used, {used / limit:.0%}"
    if used < MEMORY_WARNING * limit:
        return ok(seen)
    fix = f"{_set(cli, f'maxmemory {_mib(2 * used)}')}  # or trim sooner: janitor --retain-bytes"
    if used < MEMORY_FAILURE * limit:
        return warning(seen, fix)
    return failure(f"{seen}: devices get no ACKs when memory is full", fix)


async def latency(server: Server, clock: IReactorTime) -> Finding:
    """Check that the server replies quickly."""
    times = []
    for _ in range(_PINGS):
        start = clock.seconds()
        await server.redis.execute("PING")
        times.append(clock.seconds() - start)
    return judge_latency(median(times), max(times), server.cli)


def judge_latency(typical: float, worst: float, cli: str) -> Finding:
    """Judge the median and the longest time of a reply, in seconds."""
    seen = f"{1000 * typical:.1f} ms (median of {_PINGS}), {1000 * worst:.1f} ms (maximum)"
    if typical <= LATENCY_WARNING:
        return ok(seen)
    fix = f"{cli} SLOWLOG GET 10  # if it is empty, check the network and the disk"
    return (warning if typical <= LATENCY_FAILURE else failure)(seen, fix)


async def server_clock(server: Server, clock: IReactorTime) -> Finding:
    """Check that the server's clock agrees with this machine's."""
    start = clock.seconds()
    seconds, microseconds = await server.redis.execute("TIME")
    # The server has read its clock between the request and the reply.
    ours = (start + clock.seconds()) / 2
    return judge_clock(int(seconds) + int(microseconds) / 1e6 - ours)


def judge_clock(ahead: float) -> Finding:
    """Judge the seconds by which Redis' clock is ahead of this machine's."""
    difference = abs(ahead)
    if difference <= CLOCK_WARNING:
        return ok(f"{difference:.1f}s from this machine's clock")
    seen = f"{difference:.1f}s {'ahead of' if ahead > 0 else 'behind'} this machine's clock"
    fix = "timedatectl set-ntp true  # on both machines"
    if difference <= CLOCK_FAILURE:
        return warning(seen, fix)
    return failure(f"{seen}: ages, expiry times and received_at are wrong", fix)


async def disk(server: Server) -> Finding:
    """Check the free space of the server's folder, if it is on this machine."""
    if not is_here(server.address) or not _is_redis((await server.info()).get("process_id", "")):
        return skipped("Redis runs on another machine, or in a container")
    folder = await server.setting("dir")
    return check_free_space(folder, "# or trim sooner: janitor --retain")


def _is_redis(pid: str) -> bool:
    """Return True if a process of this machine is a Redis server."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "redis" in name or "valkey" in name


#: Name → check of the reply to INFO.
BY_INFO: Final[Mapping[str, Rule]] = {
    "redis-version": version,
    "redis-append-only": append_only,
    "redis-writes": writes,
    "redis-eviction": eviction,
    "redis-memory": memory,
}
#: Name → name of a setting, and the check of its value.
BY_SETTING: Final[Mapping[str, tuple[str, Callable[[str, str], Finding]]]] = {
    "redis-fsync": ("appendfsync", fsync),
    "redis-fsync-on-rewrite": ("no-appendfsync-on-rewrite", fsync_on_rewrite),
}


def _set(cli: str, setting: str) -> str:
    return f"{cli} CONFIG SET {setting} && {cli} CONFIG REWRITE"


def _shown(size: int) -> str:
    return f"{math.ceil(size / (1 << 20)):,} MiB"


def _mib(size: int) -> str:
    return f"{math.ceil(size / (1 << 20))}mb"
