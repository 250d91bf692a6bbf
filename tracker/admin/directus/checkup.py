"""The checks of the command ``directus check``, which change nothing."""

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

from tracker.admin.directus.files import is_readable_by_all
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusError
from tracker.bridge.rows import DEVICE_FIELDS
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

#: The first version of Directus with policies, which the setup needs.
MIN_VERSION: Final = 11

_PARTS: Final = ("collection", "policy", "role", "user", "flow")
#: Seconds in which the bridge must respond.
_BRIDGE_TIMEOUT: Final = 5.0
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

    :param client: the client of an administrator.
    :param as_bridge: a client with the bridge's token; None if the token is not given.
    :param files: files that contain secrets.
    :raises DirectusError: if Directus cannot be read.
    """
    findings = [evolve(await _version(client), check="directus-version")]
    changes = await plan(client, wanted, as_bridge)
    findings += _parts(changes)
    if as_bridge is None:
        findings.append(evolve(skipped("no --bridge-token-file given"), check="bridge-token"))
    else:
        found = [one async for one in _token(as_bridge)]
        findings += [evolve(one, check="bridge-token") for one in found]
    if wanted.secret is None:
        findings.append(evolve(skipped("no --secret-file given"), check="flow-secret"))
    else:
        bridge = await _bridge(reactor, wanted.commands_url, wanted.secret)
        findings.append(evolve(bridge, check="bridge"))
    reach = await _reach(reactor, client, wanted.commands_url)
    findings.append(evolve(reach, check="flow-reach"))
    for file in filter(None, files):
        findings.append(evolve(_file_mode(file), check="file"))
    return findings


async def _version(client: DirectusClient) -> Finding:
    info = await client.request("GET", "/server/info")
    version = str(info.get("version", "")) if isinstance(info, dict) else ""
    major = version.partition(".")[0]
    if not major.isdecimal():
        return skipped("Directus does not report its version")
    if int(major) < MIN_VERSION:
        return failure(
            f"Directus {version} is too old", f"upgrade Directus to {MIN_VERSION} or later"
        )
    return ok(f"Directus {version} at {client.base_url}")


def _parts(changes: Sequence[Change]) -> Iterable[Finding]:
    """Yield a finding for each difference, and one for each part without a difference."""
    for part in _PARTS:
        differences = [change for change in changes if change.part.startswith(part)]
        for change in differences:
            text = change.text[2:]
            seen = f"missing: {text}" if change.text.startswith("+") else f"different: {text}"
            found = failure(text, "in Directus, by hand") if change.manual else failure(seen, _FIX)
            yield evolve(found, check=part)
        if not differences:
            yield evolve(ok("as required"), check=part)


async def _token(as_bridge: DirectusClient) -> Any:
    """Check that the bridge's token has the rights that the bridge needs, and no others."""
    try:
        me = await as_bridge.request("GET", "/users/me", params={"fields": "id"})
    except DirectusDenied as error:
        if error.status == 401:
            yield failure("Directus refuses the token", _FIX)
            return
        me = {}
    if me.get("id") != BRIDGE_USER:
        yield failure("the token belongs to another user", f"remove the file, then {_FIX}")
        return
    try:
        await as_bridge.get_items(COMMANDS, fields=["id", "status"], limit=1)
        await as_bridge.get_items(DEVICES, fields=DEVICE_FIELDS, limit=1)
        rights = await as_bridge.request("GET", "/permissions/me")
        general = await as_bridge.request("GET", "/policies/me/globals")
    except DirectusError as error:
        yield failure(str(error), _FIX)
        return
    yield ok("can read commands and devices")
    if general.get("admin_access") or general.get("app_access"):
        yield failure("has more rights than needed: access to the app", _FIX)
    differences = list(_differences(rights))
    for one in differences:
        yield failure(one, _FIX)
    if not differences:
        yield ok("can change the status of commands, and has no other rights")


def _differences(rights: Mapping[str, Any]) -> Iterable[str]:
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
    for right in sorted(expected.keys() | granted.keys()):
        missing = expected.get(right, set()) - granted.get(right, set())
        surplus = granted.get(right, set()) - expected.get(right, set())
        collection, action = right
        if missing:
            yield f"lacks the right to {action} {collection}: {', '.join(sorted(missing))}"
        if surplus or (right in granted and right not in expected):
            yield (
                f"has more rights than needed: {action} {collection}: {', '.join(sorted(surplus))}"
            )


async def _bridge(reactor: Reactor, url: str, secret: str) -> Finding:
    """Check that the bridge listens and accepts the secret; no row is announced."""
    try:
        response = await treq.post(
            url,
            data=b"{}",
            headers=Headers({SECRET_HEADER: [secret]}),
            agent=Agent(reactor, connectTimeout=_BRIDGE_TIMEOUT),
            timeout=_BRIDGE_TIMEOUT,
            allow_redirects=False,
        )
    except Exception as error:  # noqa: BLE001 - any error means no response
        reason = str(error) or type(error).__name__
        return warning(f"the bridge at {url} does not respond: {reason}", "tracker bridge")
    if response.code == UNAUTHORIZED:
        fix = "restart the bridge with the same --secret-file"
        return failure(f"the bridge at {url} has another secret", fix)
    if response.code != BAD_REQUEST:
        seen = f"{url} is not a bridge (it responds with HTTP status {response.code})"
        return failure(seen, "correct --bridge-url")
    return ok(f"listens at {url} and accepts the secret")


async def _reach(reactor: Reactor, client: DirectusClient, url: str) -> Finding:
    """Check that a Flow's request reaches this machine, if the bridge is to run here.

    Directus applies the same rules to the import of a file. Therefore this check makes Directus
    import a file from a port of this process, which closes the connection.
    """
    host = urlsplit(url).hostname or ""
    listener: Any = _Listener()
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        port: Any = reactor.listenTCP(0, listener, interface=address)
    except (OSError, CannotListenError):
        return skipped(f"{host} is another machine: run this check there")
    name = f"[{host}]" if ":" in host else host
    target = f"http://{name}:{port.getHost().port}/tracker"
    try:
        with suppress(DirectusError):
            await client.request("POST", "/files/import", {"url": target})
    finally:
        await port.stopListening()
    if listener.reached:
        return ok(f"Flows reach {host}")
    return warning(
        f"Flows cannot reach {host}, and Directus reports no error: the bridge finds new commands "
        "only when it polls, some seconds later",
        _DENY_LIST,
    )


class _Listener(Factory):
    """A listener that records the first connection, and closes it."""

    noisy = False

    def __init__(self) -> None:
        self.reached = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.reached = True
        return None


def _file_mode(file: Path) -> Finding:
    try:
        exposed = is_readable_by_all(file)
    except OSError as error:
        return skipped(f"{file}: {error.strerror}")
    if exposed:
        return warning(f"{file} is readable by all users", f"chmod o-r {shlex.quote(str(file))}")
    return ok(f"{file} is not readable by all users")
