"""Make the changes that the bridge needs in Directus, or report them.

A plan is the difference between the present and the required state; after its execution the next
plan is empty. Presentation (widths, labels, the order of fields) is set only when an object is
created; later changes by users are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from attrs import field, frozen

from tracker.bridge.choices import collections
from tracker.bridge.flows import Flow, flows
from tracker.bridge.presets import PRESETS
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusRefused
from tracker.bridge.schema import (
    BRIDGE_POLICY,
    BRIDGE_ROLE,
    BRIDGE_USER,
    LAST_POSITIONS,
    LAST_POSITIONS_META,
    RELATIONS,
    ROLE,
    USER,
    Collection,
    Policy,
    policies,
)
from tracker.wording import counted

#: Members of a field's ``meta`` that are restored; users may change all others.
_REQUIRED_META: Final = ("special", "required", "readonly", "validation")

Request = tuple[str, str, Any]


@frozen
class Change:
    """A difference between the present and the required state."""

    part: str
    """The changed object, for example ``collection commands``."""
    text: str
    """A description in one line. It begins with ``+`` if the object is missing, ``~`` if it is
    different, and ``!`` if an administrator must change it by hand."""
    requests: tuple[Request, ...] = field(default=(), repr=False)
    """The requests that make the change, in order: method, path and body."""

    @property
    def manual(self) -> bool:
        """True if an administrator must make the change by hand."""
        return self.text.startswith("!")


@frozen
class SetupOptions:
    """The required settings of a plan.

    :param commands_url: URL of the webhook for commands.
    :param devices_url: URL of the webhook for devices.
    :param secret: secret that the Flows send to the bridge; None: leave it as it is.
    :param token: token of the bridge's user; None: leave it as it is.
    """

    commands_url: str
    devices_url: str
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


async def plan(client: DirectusClient, wanted: SetupOptions, as_bridge: Any = None) -> list[Change]:
    """Return the required changes, in the order in which they must be made.

    :param client: a client with an administrator's token.
    :param wanted: the required settings.
    :param as_bridge: a client with the token of the settings; None if they have none.
    :raises DirectusError: if Directus cannot be read.
    """
    has_positions = await _find(client, f"/collections/{LAST_POSITIONS}") is not None
    changes: list[Change] = []
    for collection in collections():
        changes += await _collection(client, collection)
    for relation in RELATIONS:
        changes += await _relation(client, relation)
    if has_positions:
        changes += await _positions(client)
    for policy in policies(has_positions):
        changes += await _policy(client, policy)
    changes += await _row(client, "/roles", BRIDGE_ROLE, ROLE, kind="role")
    changes += await _access(client)
    changes += await _row(client, "/users", BRIDGE_USER, USER, kind="user")
    if wanted.token is not None:
        changes += await _token(as_bridge, wanted.token)
    for flow in flows(wanted.commands_url, wanted.devices_url, wanted.secret):
        changes += await _flow(client, flow, keep_headers=wanted.secret is None)
    for preset in PRESETS:
        if preset["collection"] != LAST_POSITIONS or has_positions:
            changes += await _preset(client, preset)
    return changes


async def apply(client: DirectusClient, change: Change) -> None:
    """Make one change. Requests that succeeded before an error are not undone.

    :raises DirectusError: if a request fails.
    """
    for method, path, body in change.requests:
        await client.request(method, path, body)


async def _find(client: DirectusClient, path: str, params: Any = None) -> Any:
    """Return an object; None if it does not exist (404, or 403, because administrators see all)."""
    try:
        return await client.request("GET", path, params=params)
    except DirectusDenied as error:
        if error.status == 403:
            return None
        raise
    except DirectusRefused as error:
        if error.status == 404:
            return None
        raise


async def _collection(client: DirectusClient, wanted: Collection) -> list[Change]:
    part = f"collection {wanted.name}"
    found = await _find(client, f"/collections/{wanted.name}")
    if found is not None and found["schema"] is None:
        return [Change(part, f"! {part} is a folder; it must be a table")]
    if found is None:
        body = {
            "collection": wanted.name,
            "meta": dict(wanted.meta),
            "schema": {},
            "fields": [_numbered(one, order) for order, one in enumerate(wanted.fields, 1)],
        }
        made = f"+ {part}, with {counted(len(wanted.fields), 'field')}"
        return [Change(part, made, (("POST", "/collections", body),))]
    changes = []
    if found["meta"] is None:
        request = ("PATCH", f"/collections/{wanted.name}", {"meta": dict(wanted.meta)})
        changes.append(Change(part, f"~ {part}: show in Directus", (request,)))
    elif found["meta"]["singleton"]:
        request = ("PATCH", f"/collections/{wanted.name}", {"meta": {"singleton": False}})
        changes.append(Change(part, f"~ {part}: allow several items", (request,)))
    columns = {one["field"]: one for one in await client.request("GET", f"/fields/{wanted.name}")}
    for order, one in enumerate(wanted.fields, 1):
        changes += _field(part, wanted.name, one, columns.get(one["field"]), order=order)
    return changes


def _numbered(wanted: Mapping[str, Any], order: int) -> dict[str, Any]:
    return {**wanted, "meta": {**wanted["meta"], "sort": order}}


def _field(
    part: str, collection: str, wanted: Mapping[str, Any], found: Any, *, order: int
) -> list[Change]:
    name = wanted["field"]
    title = f"field {collection}.{name}"
    if found is None:
        if wanted["schema"].get("is_primary_key"):
            return [Change(part, f"! {title} is missing; it must be the primary key")]
        request: Request = ("POST", f"/fields/{collection}", _numbered(wanted, order))
        return [Change(part, f"+ {title}", (request,))]
    if found["type"] != wanted["type"]:
        types = f"has type {found['type']}; it must have type {wanted['type']}"
        return [Change(part, f"! {title} {types}")]
    schema = found["schema"] or {}
    if wanted["schema"].get("is_primary_key") and not schema.get("is_primary_key"):
        return [Change(part, f"! {title} must be the primary key")]
    differing, body = _field_difference(wanted, found)
    if not differing:
        return []
    request = ("PATCH", f"/fields/{collection}/{name}", body)
    return [Change(part, f"~ {title}: {', '.join(differing)}", (request,))]


def _field_difference(
    wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the differences, and the body of the request that removes them."""
    meta = found["meta"]
    if meta is None:
        return ["show in Directus"], {"meta": dict(wanted["meta"])}
    changed = {
        key: value
        for key in _REQUIRED_META
        if (value := wanted["meta"].get(key)) is not None and not _matches(value, meta.get(key))
    }
    missing = _missing_choices(wanted["meta"], meta)
    if missing:
        options = meta["options"] or {}
        changed["options"] = {**options, "choices": [*options.get("choices", []), *missing]}
    differing = ["choices" if key == "options" else key for key in changed]
    if "validation" in changed:
        changed["validation_message"] = wanted["meta"]["validation_message"]
    body: dict[str, Any] = {"meta": changed} if changed else {}
    schema = _schema_difference(wanted["schema"], found["schema"] or {})
    if schema:
        body["schema"] = schema
        differing += schema
    return differing, body


def _schema_difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must change in a column: its default, and that it may be empty."""
    changed = {}
    default = wanted.get("default_value")
    if default is not None and found.get("default_value") != default:
        changed["default_value"] = default
    if wanted.get("is_nullable") and not found.get("is_nullable", True):
        changed["is_nullable"] = True
    return changed


def _missing_choices(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[Any]:
    options = wanted.get("options") or {}
    if "choices" not in options or options.get("allowOther"):
        return []
    present = {one.get("value") for one in (found["options"] or {}).get("choices") or []}
    return [one for one in options["choices"] if one["value"] not in present]


async def _relation(client: DirectusClient, wanted: Mapping[str, Any]) -> list[Change]:
    name = f"{wanted['collection']}.{wanted['field']}"
    found = await _find(client, f"/relations/{wanted['collection']}/{wanted['field']}")
    if found is None:
        text = f"+ relation {name} → {wanted['related_collection']}"
        request = ("POST", "/relations", dict(wanted))
        return [Change(f"collection {wanted['collection']}", text, (request,))]
    if found["related_collection"] != wanted["related_collection"]:
        text = f"! relation {name} must refer to {wanted['related_collection']}"
        return [Change(f"collection {wanted['collection']}", text)]
    return []


async def _positions(client: DirectusClient) -> list[Change]:
    """Show the processor's table in Directus, read-only, and leave its columns unchanged."""
    part = f"collection {LAST_POSITIONS}"
    found = await client.request("GET", f"/collections/{LAST_POSITIONS}")
    if found["meta"] is None:
        meta = {"meta": dict(LAST_POSITIONS_META)}
        request: Request = ("PATCH", f"/collections/{LAST_POSITIONS}", meta)
        # Directus lists the fields of a table only when it is shown; the next plan handles them.
        return [Change(part, f"+ {part}: show in Directus, read-only", (request,))]
    requests = []
    for one in await client.request("GET", f"/fields/{LAST_POSITIONS}"):
        if one["meta"] is None or not one["meta"]["readonly"]:
            shown: dict[str, Any] = {"readonly": True}
            if one["meta"] is None:
                shown |= {"width": "half", "hidden": one["type"] == "unknown"}
                if one["type"] == "timestamp":
                    shown |= {"display": "datetime", "display_options": {"relative": True}}
            path = f"/fields/{LAST_POSITIONS}/{quote(one['field'], safe='')}"
            requests.append(("PATCH", path, {"meta": shown}))
    if not requests:
        return []
    return [Change(part, f"~ {part}: make fields read-only ({len(requests)})", tuple(requests))]


async def _row(
    client: DirectusClient, path: str, key: str, wanted: Mapping[str, Any], *, kind: str
) -> list[Change]:
    """Compare a row of a system collection, except for members that users may change."""
    name = wanted.get("name") or f"{wanted['first_name']} {wanted['last_name']}"
    part = f"{kind} {name}"
    found = await _find(client, f"{path}/{key}")
    if found is None:
        return [Change(part, f"+ {part}", (("POST", path, {"id": key, **wanted}),))]
    changed = {
        name: value
        for name, value in wanted.items()
        if name in _REQUIRED_ATTRIBUTES and not _matches(value, found.get(name))
    }
    if not changed:
        return []
    text = f"~ {part}: {', '.join(changed)}"
    return [Change(part, text, (("PATCH", f"{path}/{key}", changed),))]


#: Members of a row of a system collection that are restored; users may change all others.
_REQUIRED_ATTRIBUTES: Final = frozenset(
    {
        *("admin_access", "app_access", "role", "status"),
        *("trigger", "accountability", "options", "type", "flow", "operation"),
    }
)


async def _policy(client: DirectusClient, wanted: Policy) -> list[Change]:
    part = f"policy {wanted.row['name']}"
    changes = await _row(client, "/policies", wanted.id, wanted.row, kind="policy")
    rows = await client.request(
        "GET",
        "/permissions",
        params={"filter[policy][_eq]": wanted.id, "limit": "-1", "sort": "id"},
    )
    found: dict[tuple[str, str], Any] = {}
    surplus = []
    for row in rows or []:
        if found.setdefault((row["collection"], row["action"]), row) is not row:
            surplus.append(row)
    for one in wanted.permissions:
        key = (one["collection"], one["action"])
        changes += _permission(part, wanted.id, one, found.pop(key, None))
    if wanted.exact:
        for row in (*surplus, *found.values()):
            text = f"~ {part}: remove permission to {row['action']} {row['collection']}"
            request = ("DELETE", f"/permissions/{row['id']}", None)
            changes.append(Change(part, text, (request,)))
    return changes


def _permission(
    part: str, policy: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None
) -> list[Change]:
    title = f"{part}: permission to {wanted['action']} {wanted['collection']}"
    if found is None:
        request: Request = ("POST", "/permissions", {**wanted, "policy": policy})
        return [Change(part, f"+ {title}", (request,))]
    same = set(found["fields"] or []) == set(wanted["fields"]) and not any(
        found[key] for key in ("permissions", "validation", "presets")
    )
    if same:
        return []
    request = ("PATCH", f"/permissions/{found['id']}", dict(wanted))
    return [Change(part, f"~ {title}", (request,))]


async def _access(client: DirectusClient) -> list[Change]:
    """Give the bridge's policy, and no other, to its role and thereby to its user."""
    part = f"role {ROLE['name']}"
    params = {"filter[role][_eq]": BRIDGE_ROLE, "limit": "-1"}
    rows = await client.request("GET", "/access", params=params) or []
    params = {"filter[user][_eq]": BRIDGE_USER, "limit": "-1"}
    rows += await client.request("GET", "/access", params=params) or []
    ours = [row for row in rows if row["policy"] == BRIDGE_POLICY and row["role"]]
    changes = []
    if not ours:
        body = {"role": BRIDGE_ROLE, "policy": BRIDGE_POLICY, "sort": 1}
        text = f"+ {part}: attach its policy"
        changes.append(Change(part, text, (("POST", "/access", body),)))
    for row in rows:
        if row not in ours[:1]:
            request = ("DELETE", f"/access/{row['id']}", None)
            changes.append(Change(part, f"~ {part}: remove another policy", (request,)))
    return changes


async def _token(as_bridge: DirectusClient, token: str) -> list[Change]:
    part = f"user {USER['first_name']} {USER['last_name']}"
    setting: Request = ("PATCH", f"/users/{BRIDGE_USER}", {"token": token})
    try:
        me = await as_bridge.request("GET", "/users/me", params={"fields": "id"})
    except DirectusDenied as error:
        if error.status == 401:
            return [Change(part, f"~ {part}: set its token", (setting,))]
        me = None  # the user lacks the permission to read itself
    if me is not None and me.get("id") != BRIDGE_USER:
        text = "! the token in the bridge's file belongs to another user; remove the file"
        return [Change(part, text)]
    return []


async def _flow(client: DirectusClient, wanted: Flow, keep_headers: bool) -> list[Change]:
    part = f"flow {wanted.row['name']}"
    changes = await _row(client, "/flows", wanted.id, wanted.row, kind="flow")
    path = f"/operations/{wanted.operation_id}"
    found = await _find(client, path)
    if found is None:
        body = {"id": wanted.operation_id, **wanted.operation}
        changes.append(
            Change(part, f"+ {part}: add its operation", (("POST", "/operations", body),))
        )
    else:
        options = dict(wanted.operation["options"])
        if keep_headers:
            options["headers"] = (found["options"] or {}).get("headers", [])
        operation = {"type": wanted.operation["type"], "flow": wanted.id, "options": options}
        changed = {
            key: value for key, value in operation.items() if not _matches(value, found.get(key))
        }
        if changed:
            text = f"~ {part}: change its operation: {_differing_names(changed, found)}"
            changes.append(Change(part, text, (("PATCH", path, changed),)))
    flow = await _find(client, f"/flows/{wanted.id}", {"fields": "operation"})
    if flow is None or flow["operation"] != wanted.operation_id:
        request = ("PATCH", f"/flows/{wanted.id}", {"operation": wanted.operation_id})
        changes.append(Change(part, f"+ {part}: link to its operation", (request,)))
    return changes


def _differing_names(changed: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return the names of the differences without their values, because one is a secret."""
    names = [name for name in changed if name != "options"]
    before = found.get("options") or {}
    for name, value in changed.get("options", {}).items():
        if not _matches(value, before.get(name)):
            names.append(name)
    return ", ".join(names) or "options"


async def _preset(client: DirectusClient, wanted: Mapping[str, Any]) -> list[Change]:
    params = {
        "filter[collection][_eq]": wanted["collection"],
        "filter[user][_null]": "true",
        "filter[role][_null]": "true",
        "filter[bookmark][_null]": "true",
        "limit": "1",
    }
    if await client.request("GET", "/presets", params=params):
        return []
    text = f"+ preset for {wanted['collection']}: newest first"
    return [Change("preset", text, (("POST", "/presets", dict(wanted)),))]


def _matches(wanted: Any, found: Any) -> bool:
    """Return True if all members of ``wanted`` are the same in ``found``, which may have more."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _matches(value, found[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(_matches(one, other) for one, other in zip(wanted, found, strict=True))
        )
    return bool(wanted == found)
