"""Whether the roles may do what they do, as far as Redis lets itself be asked.

Each is judged by its own user, as ``tracker-ingest``, where there is one; else by who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from twisted.internet.defer import DeferredList

from tracker.admin.doctor.server import Server, rights_in
from tracker.errors import Refused
from tracker.keys import (
    ALLOWED_DEVICES,
    CONNECTED_VENDORS,
    CONNECTIONS,
    DEVICE_MODELS,
    INGEST_GROUP,
    PROCESSOR_GROUP,
    RESPONSES,
    USER_PREFIX,
    WAITING,
    dead_letters,
    fate,
    heartbeat,
    outbound,
    waiting_commands,
)
from tracker.observe.findings import Finding, failure, ok, warning

Command = tuple[str, ...]

#: For any instance, device or command: as the name of a key it is matched by the pattern.
_ANY: Final = "*"
_BEAT: Final = heartbeat(_ANY)
_OUTBOUND: Final = outbound(_ANY)
_WAITING_FOR: Final = waiting_commands(_ANY)
_FATE: Final = fate(_ANY)

#: Who a server is to itself, when it reads its log at a start: what this user may not do in a
#: transaction it leaves out, and starts. It may well be off, so that nobody logs in as it.
_LOADER: Final = "default"

_EVERY_ROLE: Final[tuple[Command, ...]] = (
    ("PING",),
    ("EVAL", "return 0", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("EXISTS", _BEAT),
    ("GET", _BEAT),
    ("MGET", _BEAT),
    ("SCAN", "0"),
    ("TIME",),
)
# Scripts run with the rights of whoever runs them, so what they call stands here, too.
_COMMANDS: Final[tuple[Command, ...]] = (
    ("XADD", _OUTBOUND, "*", "a", "b"),
    ("XADD", _WAITING_FOR, "*", "a", "b"),
    ("XADD", RESPONSES, "*", "a", "b"),
    ("XRANGE", _OUTBOUND, "-", "+"),
    ("XRANGE", _WAITING_FOR, "-", "+"),
    ("XACK", _OUTBOUND, INGEST_GROUP, "0-1"),
    ("XDEL", _OUTBOUND, "0-1"),
    ("DEL", _WAITING_FOR),
    ("SADD", WAITING, "a"),
    ("SREM", WAITING, "a"),
    ("SISMEMBER", WAITING, "a"),
    ("GET", _FATE),
    ("SET", _FATE, "a"),
    ("DEL", _FATE),
    ("HGET", CONNECTIONS, "a"),
    ("HDEL", CONNECTIONS, "a"),
    ("HSCAN", CONNECTIONS, "0"),
    ("HDEL", CONNECTED_VENDORS, "a"),
)
_INGEST: Final[tuple[Command, ...]] = (
    ("SET", _BEAT, "a"),
    ("DEL", _BEAT),
    ("PTTL", _BEAT),
    ("HSET", CONNECTIONS, "a", "b"),
    ("HMGET", CONNECTIONS, "a"),
    ("HSET", CONNECTED_VENDORS, "a", "b"),
    ("HMGET", CONNECTED_VENDORS, "a"),
    ("XLEN", _WAITING_FOR),
    ("XRANGE", RESPONSES, "-", "+"),
    ("SMEMBERS", ALLOWED_DEVICES),
    ("XGROUP", "CREATE", _OUTBOUND, INGEST_GROUP, "0", "MKSTREAM"),
    ("XINFO", "GROUPS", _OUTBOUND),
    ("XINFO", "STREAM", _OUTBOUND),
    ("XREADGROUP", "GROUP", INGEST_GROUP, "a", "STREAMS", _OUTBOUND, ">"),
)
_JANITOR: Final[tuple[Command, ...]] = (
    ("DEL", _OUTBOUND),
    ("XLEN", _OUTBOUND),
    ("SSCAN", WAITING, "0"),
)


def _of_stream(stream: str) -> Mapping[str, tuple[Command, ...]]:
    """Role → what it does with a stream of positions."""
    dead, group = dead_letters(stream), PROCESSOR_GROUP
    look: tuple[Command, ...] = (
        ("EXISTS", stream),
        ("XINFO", "STREAM", stream),
        ("XINFO", "GROUPS", stream),
        ("XINFO", "CONSUMERS", stream, group),
        ("XPENDING", stream, group),
        ("XRANGE", stream, "-", "+"),
    )
    return {
        "ingest": (("XADD", stream, "*", "a", "b"),),
        "process": (
            *look,
            ("XGROUP", "CREATE", stream, group, "0", "MKSTREAM"),
            ("XGROUP", "SETID", stream, group, "0"),
            ("XREADGROUP", "GROUP", group, "a", "STREAMS", stream, ">"),
            ("XAUTOCLAIM", stream, group, "a", "0", "0"),
            ("XCLAIM", stream, group, "a", "0", "0-1"),
            ("XACK", stream, group, "0-1"),
            ("XADD", dead, "*", "a", "b"),
            ("HGETALL", DEVICE_MODELS),
        ),
        "janitor": (
            *look,
            ("XTRIM", stream, "MINID", "0"),
            ("XTRIM", dead, "MINID", "0"),
            ("XLEN", stream),
            ("MEMORY", "USAGE", stream),
            ("XGROUP", "DELCONSUMER", stream, group, "a"),
        ),
    }


def needed(streams: Iterable[str]) -> dict[str, list[Command]]:
    """Role → commands with arguments, none of them twice."""
    found: dict[str, list[Command]] = {
        "ingest": [*_EVERY_ROLE, *_COMMANDS, *_INGEST],
        "process": [*_EVERY_ROLE],
        "janitor": [*_EVERY_ROLE, *_COMMANDS, *_JANITOR],
    }
    for stream in streams:
        for role, commands in _of_stream(stream).items():
            found[role] += commands
    return {role: list(dict.fromkeys(commands)) for role, commands in found.items()}


async def rights(server: Server, streams: Iterable[str]) -> list[Finding]:
    """The users may do what the roles do, and ask for the server's role."""
    found, users, every = [], set[str](), list[Command]()
    for role, commands in needed(streams).items():
        user = await _user_of(server, role)
        users.add(user)
        every += commands
        found.append(judge_rights(server, role, await _missing(server, commands, user), user))
    if _LOADER not in users:
        found += judge_loader(server, await _missing(server, every, _LOADER))
    if lacking := await _missing(server, [("ROLE",)], server.user):
        seen = f"{server.user} may not run ROLE: a replica is known only by a write that it refuses"
        found.append(warning(seen, server.grant_all(lacking)))
    return found


def judge_rights(server: Server, role: str, missing: set[str], user: str) -> Finding:
    """What is to be said of rights (``+command``, ``~key``) that a user lacks for a role."""
    if not missing:
        return ok(f"{user} may do what {role} does")
    told = " ".join(sorted(missing))
    mend = server.grant_all(missing, user)
    return failure(f"{user} may not do what {role} does: {told}", mend)


def judge_loader(server: Server, missing: set[str]) -> list[Finding]:
    """What is to be said of rights that the user lacks with whose rights the log is read."""
    if not missing:
        return []
    seen = (
        f"{_LOADER} may not do all that the append-only file holds, so that a restart leaves it "
        f"out: {' '.join(sorted(missing))}"
    )
    return [failure(seen, server.grant_all(missing, _LOADER))]


async def _user_of(server: Server, role: str) -> str:
    own = f"{USER_PREFIX}{role}"
    try:
        await server.redis.execute("ACL", "DRYRUN", own, "PING")
    except Refused as error:
        if "not found" not in str(error):
            raise
        return server.user
    return own


async def _missing(server: Server, commands: Iterable[Command], user: str) -> set[str]:
    """The rights that a user lacks; nothing of it is run.

    :raises Refused: where this may not be asked.
    """
    asked = [server.redis.execute("ACL", "DRYRUN", user, *command) for command in commands]
    missing: set[str] = set()
    for success, answer in await DeferredList(asked, consumeErrors=True):
        if not success:
            answer.raiseException()
        if answer != b"OK":
            missing |= rights_in(answer.decode(errors="backslashreplace")) or {answer.decode()}
    return missing
