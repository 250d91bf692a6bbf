"""The checks of ``tracker-admin directus check``, which change nothing."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import treq
from attrs import evolve
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent
from twisted.web.http import BAD_REQUEST, UNAUTHORIZED
from twisted.web.http_headers import Headers

from tracker.admin.directus.files import is_open_to_all
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusError
from tracker.bridge.schema import (
    BRIDGE_POLICY,
    BRIDGE_USER,
    COMMANDS,
    DEVICES,
    SECRET_HEADER,
    policies,
)
from tracker.bridge.setup import Change, SetupOptions, plan
from tracker.observe.findings import Finding, failure, ok, skipped, warning
from tracker.reactor import Reactor

#: Policies, which the setup needs, came with this version.
OLDEST: Final = 11

_PARTS: Final = ("collection", "policy", "role", "user", "flow")
#: Seconds that the bridge may take to answer.
_PATIENCE: Final = 5.0
_FIX: Final = "tracker-admin directus setup"
_DENY_LIST: Final = (
    "IMPORT_IP_DENY_LIST=169.254.169.254  # in the environment of Directus, then restart it"
)


async def examine(
    reactor: Reactor,
    client: DirectusClient,
    wanted: SetupOptions,
    *,
    as_bridge: DirectusClient | None,
    files: Sequence[Path | None],
) -> list[Finding]:
    """Run all checks.

    :param client: of an administrator.
    :param files: files that hold secrets.
    :raises DirectusError: if Directus cannot be read.
    """
    findings = [evolve(await _version(client), check="directus-version")]
    changes = await plan(client, wanted, as_bridge)
    findings += _parts(changes)
    if as_bridge is None:
        seen = skipped("no --bridge-token-file was given")
        findings.append(evolve(seen, check="bridge-token"))
    else:
        found = [one async for one in _token(as_bridge)]
        findings += [evolve(one, check="bridge-token") for one in found]
    if wanted.secret is None:
        findings.append(evolve(skipped("no --secret-file was given"), check="flow-secret"))
    else:
        heard = await _bridge(reactor, wanted.commands_url, wanted.secret)
        findings.append(evolve(heard, check="bridge"))
    reach = await _reach(reactor, client, wanted.commands_url)
    findings.append(evolve(reach, check="flow-reach"))
    for file in filter(None, files):
        findings.append(evolve(_kept(file), check="file"))
    return findings


async def _version(client: DirectusClient) -> Finding:
    told = await client.request("GET", "/server/info")
    version = str(told.get("version", "")) if isinstance(told, dict) else ""
    major = version.partition(".")[0]
    if not major.isdecimal():
        return skipped("Directus does not tell its version")
    if int(major) < OLDEST:
        return failure(f"Directus {version}", f"upgrade Directus to {OLDEST} or later")
    return ok(f"Directus {version} at {client.base_url}")


def _parts(changes: Sequence[Change]) -> Iterable[Finding]:
    """Yield a finding for each mistake, and one for each part without a mistake."""
    for part in _PARTS:
        wrong = [change for change in changes if change.part.startswith(part)]
        for change in wrong:
            text = change.text[2:]
            seen = f"missing: {text}" if change.text.startswith("+") else f"different: {text}"
            found = failure(text, "in Directus, by hand") if change.manual else failure(seen, _FIX)
            yield evolve(found, check=part)
        if not wrong:
            yield evolve(ok("as it has to be"), check=part)


async def _token(as_bridge: DirectusClient) -> Any:
    """Check that the bridge's token may do what it must, and nothing else."""
    try:
        me = await as_bridge.request("GET", "/users/me", params={"fields": "id"})
    except DirectusDenied as error:
        if error.status == 401:
            yield failure("Directus does not accept it", _FIX)
            return
        me = {}
    if me.get("id") != BRIDGE_USER:
        yield failure("it is another user's", f"remove the file, and {_FIX}")
        return
    try:
        await as_bridge.get_items(COMMANDS, fields=["id", "status"], limit=1)
        await as_bridge.get_items(DEVICES, fields=["imei", "model", "enabled"], limit=1)
        rights = await as_bridge.request("GET", "/permissions/me")
        general = await as_bridge.request("GET", "/policies/me/globals")
    except DirectusError as error:
        yield failure(str(error), _FIX)
        return
    yield ok("reads commands and devices")
    if general.get("admin_access") or general.get("app_access"):
        yield failure("it may do more: it has access to the app", _FIX)
    wrong = list(_surprises(rights))
    for one in wrong:
        yield failure(one, _FIX)
    if not wrong:
        yield ok("changes the state of commands, and may do nothing else")


def _surprises(rights: Mapping[str, Any]) -> Iterable[str]:
    """Yield the differences between the rights that the token has and should have."""
    (policy,) = (one for one in policies(False) if one.id == BRIDGE_POLICY)
    expected = {
        (one["collection"], one["action"]): set(one["fields"]) for one in policy.permissions
    }
    granted = {
        (collection, action): set(how.get("fields") or ())
        for collection, actions in rights.items()
        for action, how in actions.items()
        if how.get("access") != "none"
    }
    for what in sorted(expected.keys() | granted.keys()):
        missing = expected.get(what, set()) - granted.get(what, set())
        surplus = granted.get(what, set()) - expected.get(what, set())
        collection, action = what
        if missing:
            yield f"it may not {action} {collection}: {', '.join(sorted(missing))}"
        if surplus or (what in granted and what not in expected):
            yield f"it may do more: {action} {collection}: {', '.join(sorted(surplus))}"


async def _bridge(reactor: Reactor, url: str, secret: str) -> Finding:
    """Check that the bridge listens and knows the secret; no row is announced."""
    try:
        answer = await treq.post(
            url,
            data=b"{}",
            headers=Headers({SECRET_HEADER: [secret]}),
            agent=Agent(reactor, connectTimeout=_PATIENCE),
            timeout=_PATIENCE,
            allow_redirects=False,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, it says that no bridge answers
        why = str(error) or type(error).__name__
        return warning(f"no bridge answers at {url}: {why}", "start twistd tracker bridge")
    if answer.code == UNAUTHORIZED:
        fix = "give the bridge the same --secret-file, and restart it"
        return failure(f"the bridge at {url} knows another secret", fix)
    if answer.code != BAD_REQUEST:
        return failure(f"who answers at {url} is no bridge: {answer.code}", "see --bridge-url")
    return ok(f"listens at {url}, and knows the secret")


async def _reach(reactor: Reactor, client: DirectusClient, url: str) -> Finding:
    """Check that a Flow's request reaches this machine, on which the bridge is to run.

    Directus applies the same rules to the import of a file. So it is asked to import one from a
    port of this process, which closes the connection.
    """
    host = urlsplit(url).hostname or ""
    visit: Any = _Visit()
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        port: Any = reactor.listenTCP(0, visit, interface=address)
    except (OSError, CannotListenError):
        return skipped(f"{host} is not this machine: run it where the bridge is to run")
    shown = f"[{host}]" if ":" in host else host
    place = f"http://{shown}:{port.getHost().port}/tracker"
    try:
        with suppress(DirectusError):
            await client.request("POST", "/files/import", {"url": place})
    finally:
        await port.stopListening()
    if visit.came:
        return ok(f"Flows reach {host}")
    return warning(
        f"Directus does not reach {host}, and tells nobody when a Flow tries: "
        "the bridge finds new commands by asking, some seconds later",
        _DENY_LIST,
    )


class _Visit(Factory):
    """Notes a connection, and closes it."""

    noisy = False

    def __init__(self) -> None:
        self.came = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.came = True
        return None


def _kept(file: Path) -> Finding:
    try:
        others = is_open_to_all(file)
    except OSError as error:
        return skipped(f"{file}: {error.strerror}")
    if others:
        return warning(f"everybody may read {file}", f"chmod o-r {shlex.quote(str(file))}")
    return ok(f"{file} is not for everybody")
