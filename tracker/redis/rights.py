"""Permissions of each role's Redis user, read from the ACL file ``users.acl``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Final

from attrs import frozen

from tracker.keys import TELEMETRY_TEMPLATE, USER_PREFIX, dead_letters, telemetry_stream

Command = tuple[str, ...]

#: Commands that a role does not require: without them it reports less, or uses database 0.
OPTIONAL: Final = frozenset({"info", "role", "select"})

_STREAMS: Final = telemetry_stream("*", TELEMETRY_TEMPLATE)
_DEAD_LETTERS: Final = dead_letters(_STREAMS)
_SELECTOR: Final = re.compile(r"\(([^)]*)\)")

_KEY: Final = "{key}"
#: Valid arguments of each command, for ACL DRYRUN.
_ARGUMENTS: Final[dict[str, Command]] = {
    "acl|dryrun": ("default", "PING"),
    "config|get": ("dir",),
    "eval": ("return 0", "0"),
    "evalsha": ("0" * 40, "0"),
    "expire": (_KEY, "1"),
    "hdel": (_KEY, "a"),
    "hget": (_KEY, "a"),
    "hmget": (_KEY, "a"),
    "hscan": (_KEY, "0"),
    "hset": (_KEY, "a", "b"),
    "info": (),
    "ping": (),
    "rename": (_KEY, _KEY),
    "role": (),
    "sadd": (_KEY, "a"),
    "scan": ("0",),
    "select": ("0",),
    "set": (_KEY, "a"),
    "sismember": (_KEY, "a"),
    "srem": (_KEY, "a"),
    "sscan": (_KEY, "0"),
    "time": (),
    "xack": (_KEY, "group", "0-1"),
    "xadd": (_KEY, "*", "a", "b"),
    "xautoclaim": (_KEY, "group", "a", "0", "0"),
    "xclaim": (_KEY, "group", "a", "0", "0-1"),
    "xdel": (_KEY, "0-1"),
    "xgroup|create": (_KEY, "group", "0", "MKSTREAM"),
    "xgroup|delconsumer": (_KEY, "group", "a"),
    "xgroup|setid": (_KEY, "group", "0"),
    "xinfo|consumers": (_KEY, "group"),
    "xpending": (_KEY, "group"),
    "xrange": (_KEY, "-", "+"),
    "xread": ("STREAMS", _KEY, "0"),
    "xreadgroup": ("GROUP", "group", "a", "STREAMS", _KEY, ">"),
    "xrevrange": (_KEY, "+", "-"),
    "xtrim": (_KEY, "MINID", "0"),
    "zadd": (_KEY, "0", "a"),
    "zrangebylex": (_KEY, "-", "+"),
    "zrangebyscore": (_KEY, "-inf", "0"),
    "zrem": (_KEY, "a"),
    "zrevrangebylex": (_KEY, "+", "-"),
    "zscore": (_KEY, "a"),
}


@frozen
class Grant:
    """Commands, and patterns of the keys on which they are allowed."""

    commands: tuple[str, ...]
    """In lower case; subcommands in the form ``xinfo|stream``."""
    patterns: tuple[str, ...]


def grants() -> dict[str, list[Grant]]:
    """Return role → the permissions of its user."""
    found = {}
    for line in files("tracker.redis").joinpath("users.acl").read_text("utf-8").splitlines():
        _, user, *_ = line.split()
        if user.startswith(USER_PREFIX):
            parts = [_SELECTOR.sub("", line), *_SELECTOR.findall(line)]
            found[user.removeprefix(USER_PREFIX)] = list(map(_grant, parts))
    return found


def commands(role: str, streams: Iterable[str]) -> list[Command]:
    """Return the commands that a role's user may run, with valid arguments.

    ``streams`` replace the pattern of the streams of positions. Other patterns serve as keys
    themselves, because they match themselves. :data:`OPTIONAL` commands are left out.
    """
    names = {_STREAMS: list(streams)}
    names[_DEAD_LETTERS] = [dead_letters(stream) for stream in names[_STREAMS]]
    found = [
        command
        for grant in grants()[role]
        for name in grant.commands
        if name not in OPTIONAL
        for command in _with_keys(name, grant, names)
    ]
    return list(dict.fromkeys(found))


def _grant(rules: str) -> Grant:
    words = rules.split()
    return Grant(
        tuple(word[1:] for word in words if word.startswith("+")),
        tuple(word.partition("~")[2] for word in words if re.match(r"(%[RW]+)?~", word)),
    )


def _with_keys(name: str, grant: Grant, names: dict[str, list[str]]) -> Iterator[Command]:
    arguments = _ARGUMENTS.get(name, (_KEY,))
    keys = [key for pattern in grant.patterns for key in names.get(pattern, [pattern])]
    for key in keys if _KEY in arguments else [""]:
        yield (
            *name.upper().split("|"),
            *(key if argument == _KEY else argument for argument in arguments),
        )
