"""Check that the roles may do what they do, as far as Redis can be asked.

Each role is judged by its own user, such as ``tracker-ingest``, if there is one; otherwise by the
user that asks.
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

#: The user as which a server reads its log at a start: it leaves out what this user may not do in
#: a transaction, and starts. The user may be off, so that nobody logs in as it.
_LOADER: Final = "default"


async def rights(server: Server, streams: Iterable[str]) -> list[Finding]:
    """Check the rights of the users of all roles, and the one to ask for the server's role.

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
        seen = f"{server.user} may not run ROLE: a replica is known only by a write that it refuses"
        found.append(warning(seen, server.grant_all(lacking)))
    return found


def judge_rights(server: Server, role: str, missing: set[str], user: str) -> Finding:
    """Judge the rights (``+command``, ``~key``) that a user lacks for a role."""
    if not missing:
        return ok(f"{user} may do what {role} does")
    told = " ".join(sorted(missing))
    fix = server.grant_all(missing, user)
    return failure(f"{user} may not do what {role} does: {told}", fix)


def judge_loader(server: Server, missing: set[str]) -> list[Finding]:
    """Judge the rights that the user lacks as which the server reads its log."""
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


async def _missing(server: Server, needed: Iterable[Command], user: str) -> set[str]:
    """Return the rights that a user lacks for some commands, of which none is run.

    :raises Refused: if the user that asks may not ask this.
    """
    asked = [server.redis.execute("ACL", "DRYRUN", user, *command) for command in needed]
    missing: set[str] = set()
    for success, answer in await DeferredList(asked, consumeErrors=True):
        if not success:
            answer.raiseException()
        if answer != b"OK":
            missing |= rights_in(answer.decode(errors="backslashreplace")) or {answer.decode()}
    return missing
