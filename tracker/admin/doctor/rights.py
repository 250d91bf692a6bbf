"""Check that the Redis users of the roles have the rights that their commands need.

The user of a role is its own, such as ``tracker-ingest``, if that exists; otherwise it is the user
that runs the checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.internet.defer import DeferredList

from tracker.admin.doctor.server import Server, rights_in
from tracker.errors import Refused
from tracker.keys import USER_PREFIX
from tracker.observe.findings import Finding, failure, ok, warning
from tracker.redis.rights import Command, commands

#: Roles that every installation has.
ROLES: Final = ("ingest", "process", "janitor")

#: The user as which a server replays its append-only file when it starts. The server skips commands
#: in transactions that this user may not run. The user may be disabled for logins.
_LOADER: Final = "default"


async def rights(server: Server, streams: Iterable[str]) -> list[Finding]:
    """Check the rights of the users of all roles, and the right to run ROLE.

    :param streams: of positions.
    """
    found, users, every = [], set[str](), list[Command]()
    streams = list(streams)
    for role in ROLES:
        user = await _user_of(server, role)
        needed = commands(role, streams)
        users.add(user)
        every += needed
        found.append(judge_rights(server, role, await _missing(server, needed, user), user))
    if _LOADER not in users:
        found += judge_loader(server, await _missing(server, every, _LOADER))
    if lacking := await _missing(server, [("ROLE",)], server.user):
        seen = (
            f'Redis user "{server.user}" may not run ROLE: a replica is detected only when it '
            "refuses a write"
        )
        found.append(warning(seen, server.grant_all(lacking)))
    return found


def judge_rights(server: Server, role: str, missing: set[str], user: str) -> Finding:
    """Judge the rights (``+command``, ``~key``) that the user of a role lacks."""
    if not missing:
        return ok(f'Redis user "{user}" has all permissions that {role} needs')
    names = " ".join(sorted(missing))
    seen = f'Redis user "{user}" lacks permissions that {role} needs: {names}'
    return failure(seen, server.grant_all(missing, user))


def judge_loader(server: Server, missing: set[str]) -> list[Finding]:
    """Judge the rights that the user lacks as which the server replays its append-only file."""
    if not missing:
        return []
    seen = (
        f'Redis user "{_LOADER}" lacks permissions, so that a restart skips commands of the '
        f"append-only file: {' '.join(sorted(missing))}"
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


async def _missing(server: Server, needed: Iterable[Command], user: str) -> set[str]:
    """Return the rights that a user lacks for some commands, without running them.

    :raises Refused: if the user that runs the checks may not run ACL DRYRUN.
    """
    requests = [server.redis.execute("ACL", "DRYRUN", user, *command) for command in needed]
    missing: set[str] = set()
    for success, reply in await DeferredList(requests, consumeErrors=True):
        if not success:
            reply.raiseException()
        if reply != b"OK":
            missing |= rights_in(reply.decode(errors="backslashreplace")) or {reply.decode()}
    return missing
