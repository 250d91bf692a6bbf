"""Suggestions of device ids, instance ids and streams, for the completion of a shell.

They are found without importing the module of the command, which would take longer than the
requests to Redis or to a control port. Everything else is completed by click.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from tracker.admin.asking import BlockingControl, BlockingRedis
from tracker.admin.options import Options
from tracker.admin.variables import FILE_VARIABLE
from tracker.control.sockets import SocketFolders
from tracker.keys import COMMANDS_PREFIX, CONNECTIONS, RESPONSES, heartbeat
from tracker.redis.address import redis_address

#: Seconds for all requests of one completion.
TIMEOUT: Final = 0.2
MAX_SUGGESTIONS: Final = 100


class Kind(Enum):
    """The kind of names that an argument takes."""

    DEVICE = "device"
    INSTANCE = "instance"
    STREAM = "stream"


#: Command → kind of its first argument.
ARGUMENTS: Final[Mapping[tuple[str, ...], Kind]] = {
    ("device",): Kind.DEVICE,
    ("drop",): Kind.DEVICE,
    ("send",): Kind.DEVICE,
    ("watch",): Kind.DEVICE,
    ("skipped", "discard"): Kind.STREAM,
    ("streams", "adopt"): Kind.STREAM,
}
#: Option of a command → kind of its value.
OPTIONS: Final[Mapping[tuple[str, ...], Kind]] = {
    ("connections", "--prefix"): Kind.DEVICE,
    ("device-registry", "--instance"): Kind.INSTANCE,
    ("device-registry", "--prefix"): Kind.DEVICE,
    ("status", "--device"): Kind.DEVICE,
    ("streams", "adopt", "--to"): Kind.STREAM,
    **{
        (*command, "--stream"): Kind.STREAM
        for command in (
            *(("dead", name) for name in ("drop", "list", "retry", "show")),
            ("lag",),
            ("replay",),
            ("skipped", "list"),
        )
    },
}
#: Options before a command, all of which take a value.
_GLOBAL: Final = ("--control", "--config", "--output", "-o")


def complete(instruction: str) -> bool:
    """Print the suggestions for the words in the environment, as a completion script asks for them.

    :param instruction: such as ``bash_complete``, from the script that click has written.
    :return: False if the completion is not one of these names.
    """
    shell, _, action = instruction.partition("_")
    found = get_completion_class(shell)
    if found is None or action != "complete":
        return False
    protocol = found(click.Command(""), {}, "tracker-admin", "_TRACKER_ADMIN_COMPLETE")
    words, incomplete = protocol.get_completion_args()
    lead = ""
    if shell == "bash":
        words, incomplete, lead = _joined(words, incomplete)
    wanted = wanted_kind(words)
    if wanted is None or incomplete.startswith("-"):
        return False
    file = _value(words, "--config") or os.environ.get(FILE_VARIABLE)
    options = Options(_value(words, "--control"), Path(file) if file else None)
    names = suggestions(wanted, incomplete, options, _value(words, "--redis"))
    for name in names:
        print(protocol.format_completion(CompletionItem(name.removeprefix(lead))))
    return True


def wanted_kind(words: Sequence[str]) -> Kind | None:
    """Return the kind of the next word after others; None if it is not one of these.

    :param words: the words of the command line after the program's name.
    """
    rest = list(words)
    while len(rest) > 1 and rest[0] in _GLOBAL:
        del rest[:2]
    for length in (1, 2):
        command, after = tuple(rest[:length]), rest[length:]
        if not after and command in ARGUMENTS:
            return ARGUMENTS[command]
        if after and (kind := OPTIONS.get((*command, after[-1]))) is not None:
            return kind
    return None


def suggestions(kind: Kind, prefix: str, options: Options, redis: str | None) -> list[str]:
    """Return names that begin with a prefix, sorted; none if no server replies in time.

    Redis is asked if it is configured, else a control port, else the Redis of this machine.

    :param redis: URL of Redis on the command line.
    """
    deadline = time.monotonic() + TIMEOUT
    names: set[str] = set()
    # A completion has no place for an error; names found before it are still right.
    with suppress(click.UsageError):
        for source in _sources(kind, prefix, options, redis=redis, deadline=deadline):
            with suppress(OSError, ValueError, KeyError, click.UsageError):
                for name in source:
                    if name.startswith(prefix) and name.isprintable():
                        names.add(name)
                    if len(names) == MAX_SUGGESTIONS:
                        break
            if names:
                break
    return sorted(names)


def _sources(
    kind: Kind, prefix: str, options: Options, *, redis: str | None, deadline: float
) -> Iterator[Iterable[str]]:
    given = options.given_redis(redis)
    if given is not None:
        yield _from_redis(kind, prefix, given.value, deadline)
    yield _from_control(kind, prefix, options, deadline)
    if given is None:
        yield _from_redis(kind, prefix, None, deadline)


def _from_redis(kind: Kind, prefix: str, url: str | None, deadline: float) -> Iterator[str]:
    with BlockingRedis(redis_address(url, os.environ), deadline) as redis:
        if kind is Kind.DEVICE:
            yield from redis.scan("MATCH", f"{_literal(prefix)}*", key=CONNECTIONS)
        elif kind is Kind.INSTANCE:
            for key in redis.scan("MATCH", f"{heartbeat(_literal(prefix))}*"):
                yield key.removeprefix(heartbeat(""))
        else:
            for stream in redis.scan("MATCH", f"{_literal(prefix)}*", "TYPE", "stream"):
                if not stream.startswith(COMMANDS_PREFIX) or stream == RESPONSES:
                    yield stream


def _from_control(kind: Kind, prefix: str, options: Options, deadline: float) -> Iterator[str]:
    with BlockingControl(_control_port(options), deadline) as control:
        if kind is Kind.STREAM:
            yield from control.streams()
        elif kind is Kind.DEVICE:
            yield from (device for device, _ in control.devices(prefix, MAX_SUGGESTIONS))
        else:
            yield control.instance_id
            yield from (instance for _, instance in control.devices("", MAX_SUGGESTIONS))


def _control_port(options: Options) -> str:
    """Return the control port that is given, or else that of any instance on this machine."""
    given = options.given_control()
    if given is not None:
        return given.value
    served = SocketFolders(options.environ).search().served
    if not served:
        raise FileNotFoundError
    return f"unix:{served[0]}"


def _literal(prefix: str) -> str:
    """Return a pattern of Redis that matches a text only."""
    return "".join(f"\\{one}" if one in r"*?[]\^" else one for one in prefix)


def _value(words: Sequence[str], option: str) -> str | None:
    for word, following in zip(words, islice(words, 1, None), strict=False):
        if word == option:
            return following
    return None


def _joined(words: list[str], incomplete: str) -> tuple[list[str], str, str]:
    """Return the words of bash with those joined that it splits at a colon.

    Bash replaces only the part after the last colon (COMP_WORDBREAKS in bash(1)).

    :return: the words, the incomplete one, and its part that bash keeps.
    """
    joined: list[str] = []
    glue = False
    for word in (*words, incomplete):
        if joined and (glue or word == ":"):
            joined[-1] += word
        else:
            joined.append(word)
        glue = word == ":"
    last = joined.pop()
    return joined, last, last[: last.rfind(":") + 1]
